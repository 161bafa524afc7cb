"""The server's relational database: the engine, its tables, and their migrations."""

__all__: list[str] = []
