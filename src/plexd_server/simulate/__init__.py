"""A mesh that does not exist, reported through the public API: for demonstrations and load tests.

`world` says what is true at a moment, `readings` what each node reads of it, `identities` who the
nodes are to the server, `fleet` has them report. Every simulated node's name begins with ``sim-``.
"""

from plexd_server.simulate.fleet import Plan, Simulation
from plexd_server.simulate.identities import Identity, enrol, register_here
from plexd_server.simulate.sender import Sender, Sent
from plexd_server.simulate.world import World

__all__ = [
    "Identity",
    "Plan",
    "Sender",
    "Sent",
    "Simulation",
    "World",
    "enrol",
    "register_here",
]
