"""Who asks, and may they."""

__all__: list[str] = []
