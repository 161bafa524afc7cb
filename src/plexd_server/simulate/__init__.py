"""A mesh that does not exist, reported through the public API: for demonstrations and load tests.

`world` says what is true at a moment, and `readings` what each node reads of it. `identities` has
the nodes registered, `fleet` runs them, and `uplink` sends their reports. The name of every
simulated node begins with ``sim-``.
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
