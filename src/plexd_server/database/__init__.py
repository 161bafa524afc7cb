"""The server's relational database: its engine, its tables, and their numbered migrations."""

__all__: list[str] = []
