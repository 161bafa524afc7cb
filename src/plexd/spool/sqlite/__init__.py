"""The machine behind `DiskSpool`: a SQLite file, a watermark beside it, and their faults."""

__all__: list[str] = []
