"""The live picture of the mesh: what each node reads of its peers, joined, judged and explained.

Everything here but `watching` is pure: it takes readings and the time, and answers.
"""

from plexd_server.mesh.feed import ObservedStore, watching
from plexd_server.mesh.live import LiveMesh

__all__ = ["LiveMesh", "ObservedStore", "watching"]
