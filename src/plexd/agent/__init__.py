"""The program of a node: configuration, identity, command line, and the composition of the parts.

Importing this package loads nothing; every command imports what it needs when it runs.
"""

__all__: list[str] = []
