"""The pages people look at: shells of HTML, filled by plain ES modules from the JSON routes."""

__all__: list[str] = []
