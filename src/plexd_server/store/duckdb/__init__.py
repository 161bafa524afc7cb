"""The embedded store: a journal that makes reports durable, and DuckDB that answers."""

__all__: list[str] = []
