"""The ``plexd`` command."""

__all__: list[str] = []
