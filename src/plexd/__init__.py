"""Metrics of a WireGuard mesh node: collected, kept on the disk, delivered.

Import the parts by name (``from plexd import api, metrics``); importing this package alone
loads nothing else, so that ``plexd --version`` is fast.
"""

__version__ = "0.1.0"
