"""What is true in the simulated mesh at any moment. Pure: the same call has the same result.

Nodes are in cities, and round trips follow from the distance. A few nodes and pairs have a fault,
so that there is something to find:

    nodes  fault
    0 1    loses pings, the first end many more than the second
    2 3    what 3 sends does not arrive at 2
    4 5    has never had a handshake
    6 7    is down since 20 minutes before the start
    1 8    works for four minutes, then is down for four, and so on
    0 9    answers no pings: they are filtered on the way
    10     reports until ten minutes before the start, then is silent
    9      its disk is nearly full
    8      its clock is 95 seconds ahead
    7      dropped six minutes of points, 40 minutes before the start
"""

from __future__ import annotations

import math
from typing import Final, Literal

from msgspec import Struct

SILENT: Final = 10
FULL_DISK: Final = 9
CLOCK_AHEAD: Final = {8: 95.0}
# By node: the seconds, from the start, of which it dropped the points.
HOLE: Final = {7: (-2400.0, -2040.0)}

_SILENT_SINCE: Final = -600.0
_DOWN_SINCE: Final = -1200.0
_ONE_WAY_SINCE: Final = -2100.0
_FLAP_SECONDS: Final = 240.0
_LOSS_UNKNOWN: Final = -1.0
_LOSS_KNOWN_AFTER: Final = 120.0  # eight pings, one every 15 s
_BEGINNING: Final = -6 * 3600.0  # every counter is zero then
_LIGHT_KM_PER_MS: Final = 200.0 / 1.4  # in glass, and cables take detours
_EARTH_KM: Final = 6371.0
_CITIES: Final = (
    ("berlin", 52.5, 13.4),
    ("tokyo", 35.7, 139.7),
    ("oslo", 59.9, 10.8),
    ("lima", -12.0, -77.0),
    ("paris", 48.9, 2.4),
    ("sydney", -33.9, 151.2),
    ("boston", 42.4, -71.1),
    ("mumbai", 19.1, 72.9),
    ("madrid", 40.4, -3.7),
    ("nairobi", -1.3, 36.8),
    ("denver", 39.7, -105.0),
    ("seoul", 37.6, 127.0),
    ("warsaw", 52.2, 21.0),
    ("lagos", 6.5, 3.4),
    ("quito", -0.2, -78.5),
    ("cairo", 30.0, 31.2),
    ("dublin", 53.3, -6.3),
    ("hanoi", 21.0, 105.9),
    ("zurich", 47.4, 8.5),
    ("perth", -31.9, 115.9),
)

Fault = Literal["", "lossy", "deaf", "never", "down", "flaps", "unpinged", "silent"]
_FAULTS: Final[dict[tuple[int, int], Fault]] = {
    (0, 1): "lossy",
    (2, 3): "deaf",
    (4, 5): "never",
    (6, 7): "down",
    (1, 8): "flaps",
    (0, 9): "unpinged",
}


class Path(Struct, frozen=True, gc=False):
    """What ``here`` can read of ``there`` at a moment.

    Of the ``passed`` seconds since the counters were zero, bytes came in during ``alive``. The loss
    is -1 until it is known.
    """

    answered: bool
    handshake_age: float | None
    alive: float
    passed: float
    loss_percent: float
    rtt_seconds: float
    pinged: bool = True


def noise(*numbers: float) -> float:
    """Return a number in [0, 1) that looks random and is the same for the same numbers."""
    mixed = 0.0
    for number in numbers:
        mixed = math.modf(math.sin(mixed * 78.233 + number * 12.9898) * 43758.5453)[0]
    return abs(mixed)


class World:
    """A mesh of ``nodes`` nodes with about ``peers`` peers each, the nearest in a ring."""

    def __init__(self, nodes: int, peers: int) -> None:
        self.nodes = nodes
        self._reach = min(peers, nodes - 1)

    def name(self, node: int) -> str:
        """Return a node's name: its city, with a number from the second node there on."""
        city, before = _CITIES[node % len(_CITIES)][0], node // len(_CITIES)
        return f"sim-{city}" + (f"-{before + 1}" if before else "")

    def peers(self, node: int) -> list[int]:
        """Return the peers of a node, which is a peer of each of them."""
        sides = range(1, self._reach // 2 + 1)
        found = {(node + step) % self.nodes for side in sides for step in (side, -side)}
        if self._reach % 2 and self._reach == self.nodes - 1:
            found.add((node + self.nodes // 2) % self.nodes)
        return sorted(found - {node})

    def is_silent(self, node: int, at: float) -> bool:
        """Return whether the node reports no more, ``at`` seconds after the start."""
        return node == SILENT and at > _SILENT_SINCE

    def path(self, here: int, there: int, at: float) -> Path:
        """Return what ``here`` can read of ``there``, ``at`` seconds after the start."""
        ends = (min(here, there), max(here, there))
        fault = "silent" if SILENT in ends else _FAULTS.get(ends, "")
        passed = at - _BEGINNING
        if fault == "never":
            return Path(False, None, 0.0, passed, 100.0, 0.0)  # noqa: FBT003 -- a row of a table
        if fault == "flaps":
            return self._flapping(here, there, at)
        cut = max(0.0, at - _cut_since(fault))
        if cut == 0:
            return self._working(here, there, at, fault)
        hears = fault == "deaf" and here == ends[1]
        alive = passed if hears else passed - cut
        return Path(False, cut + 60.0, alive, passed, _loss_after(cut), 0.0)  # noqa: FBT003 -- the same

    def round_trip(self, one: int, other: int) -> float:
        """Return the seconds that follow from the distance of two nodes' cities."""
        return (_kilometres(one, other) * 2 / _LIGHT_KM_PER_MS + 0.6) / 1000

    def _working(self, here: int, there: int, at: float, fault: Fault) -> Path:
        passed = at - _BEGINNING
        chance = noise(here, there, at)
        loss = self._loss(here, there, at, fault)
        trip = self.round_trip(here, there) * (1 + 0.08 * chance) + 0.0002 * noise(there, at)
        if noise(here, there, at, 3) > 0.985:
            trip *= 1.6
        age = (at + 120 * noise(min(here, there), max(here, there))) % 120
        unpinged = fault == "unpinged"
        answered = not unpinged and chance * 100 >= loss
        return Path(answered, age, passed, passed, loss, trip, not unpinged)

    @staticmethod
    def _loss(here: int, there: int, at: float, fault: Fault) -> float:
        """Return the percentage, in steps of five, as of twenty pings."""
        if fault == "lossy":
            return 5.0 * round((30 if here < there else 5) / 5 + 2 * noise(here, there, at, 1) - 1)
        return 5.0 if noise(here, there, at // 120) > 0.97 else 0.0

    def _flapping(self, here: int, there: int, at: float) -> Path:
        passed = at - _BEGINNING
        cycles, into = divmod(passed, 2 * _FLAP_SECONDS)
        if into < _FLAP_SECONDS:
            working = self._working(here, there, at, "")
            loss = working.loss_percent if into >= _LOSS_KNOWN_AFTER else _LOSS_UNKNOWN
            return Path(
                working.answered,
                into % 120,
                cycles * _FLAP_SECONDS + into,
                passed,
                loss,
                working.rtt_seconds,
            )
        cut = into - _FLAP_SECONDS
        alive = (cycles + 1) * _FLAP_SECONDS
        return Path(False, cut + 60.0, alive, passed, _loss_after(cut), 0.0)  # noqa: FBT003 -- the same


def _cut_since(fault: Fault) -> float:
    since = {"down": _DOWN_SINCE, "deaf": _ONE_WAY_SINCE, "silent": _SILENT_SINCE}
    return since.get(fault, math.inf)


def _loss_after(cut: float) -> float:
    """Return the percentage of the latest twenty pings, one every 15 s."""
    return 5.0 * round(min(100.0, cut / 3) / 5)


def _kilometres(one: int, other: int) -> float:
    _, lat1, lon1 = _CITIES[one % len(_CITIES)]
    _, lat2, lon2 = _CITIES[other % len(_CITIES)]
    a, b = math.radians(lat1), math.radians(lat2)
    half = (
        math.sin((b - a) / 2) ** 2
        + math.cos(a) * math.cos(b) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    )
    return 2 * _EARTH_KM * math.asin(math.sqrt(half))
