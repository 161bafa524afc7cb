"""The live mesh: what each node reads of its peers, joined, classified and explained.

All but `feed` is pure: readings and the time are its arguments. `feed` knows the store's port and
lists the registered nodes; the routes only read.
"""

from plexd_server.mesh.feed import ObservedStore, feeding
from plexd_server.mesh.live import LiveMesh

__all__ = ["LiveMesh", "ObservedStore", "feeding"]
