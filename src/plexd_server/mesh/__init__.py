"""The live picture of the mesh: what each node reads of its peers, joined, judged and explained.

Everything here but `feed` is pure: it takes readings and the time, and answers. `feed` knows the
store's port and who is registered; the routes read what is here and change nothing.
"""

from plexd_server.mesh.feed import ObservedStore, watching
from plexd_server.mesh.live import LiveMesh

__all__ = ["LiveMesh", "ObservedStore", "watching"]
