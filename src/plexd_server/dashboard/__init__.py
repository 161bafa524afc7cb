"""The operator's pages: HTML without data, filled by plain ES modules from the JSON routes."""

__all__: list[str] = []
