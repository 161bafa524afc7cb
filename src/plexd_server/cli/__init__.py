"""The ``plexd-server`` command."""

__all__: list[str] = []
