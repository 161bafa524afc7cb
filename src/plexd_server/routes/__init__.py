"""The HTTP interface: one file for each group of paths."""

__all__: list[str] = []
