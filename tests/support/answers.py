"""Answers about the live mesh as a client reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from plexd.steps import finish
from plexd_server.mesh.fleet import FleetAnswer, fleet
from plexd_server.mesh.overview import encoding

if TYPE_CHECKING:
    from plexd_server.mesh import LiveMesh
    from plexd_server.mesh.moment import Moment

__all__ = ["fleet_at"]


def fleet_at(live: LiveMesh, now: Moment) -> FleetAnswer:
    """Return all nodes and alerts as they are at a moment."""
    answer = finish(fleet(live, live.snapshot(now), now))
    return msgspec.json.decode(b"".join(finish(encoding(answer))), type=FleetAnswer)
