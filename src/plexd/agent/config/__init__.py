"""The agent's settings: from file, environment and defaults to checked values, and back."""

__all__: list[str] = []
