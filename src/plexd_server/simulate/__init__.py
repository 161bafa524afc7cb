"""A mesh that does not exist, reported through the public API: for demonstrations and load tests.

`world` says what is true at a moment, `readings` what each node reads of it, `identities` who the
nodes are to the server, `fleet` has them report. Every simulated node's name begins with ``sim-``.
"""

from plexd_server.simulate.fleet import Plan, Simulation
from plexd_server.simulate.identities import SimulatedIdentity, enrol, register_here
from plexd_server.simulate.uplink import Sent, Uplink
from plexd_server.simulate.world import World

__all__ = [
    "Plan",
    "Sent",
    "SimulatedIdentity",
    "Simulation",
    "Uplink",
    "World",
    "enrol",
    "register_here",
]
