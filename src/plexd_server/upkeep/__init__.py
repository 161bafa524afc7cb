"""The care of what is stored: retention, backups, and the data directory."""

__all__: list[str] = []
