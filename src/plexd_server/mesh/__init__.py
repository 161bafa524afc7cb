"""The live picture of the mesh: what each node reads of its peers, joined, judged and explained.

Everything here but `watching` and `routes` is pure: it takes readings and the time, and answers.
"""

from plexd_server.mesh.board import Board
from plexd_server.mesh.routes import mesh_routes
from plexd_server.mesh.watching import ObservedStore, watching

__all__ = ["Board", "ObservedStore", "mesh_routes", "watching"]
