"""The live picture of the mesh: what each node reads of its peers, joined, judged and explained.

Everything here but `watching` and `routes` is pure: it takes readings and the time, and answers.
"""

from plexd_server.mesh.feed import ObservedStore, watching
from plexd_server.mesh.live import LiveMesh
from plexd_server.routes.mesh import mesh_routes

__all__ = ["LiveMesh", "ObservedStore", "mesh_routes", "watching"]
