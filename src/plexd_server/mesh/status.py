"""The one rule for whether a node is up, waiting or silent. Pure.

A node is silent if nothing arrived from it for two and a half of its usual intervals. It is silent,
too, if it delivered a backlog and its newest reading is as old: then what arrived was kept since
before it went silent. While this server was not running, no node could report.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from plexd_server.mesh.node import NodeRow
from plexd_server.mesh.views import Frame, moment_of

if TYPE_CHECKING:
    from plexd_server.mesh.moment import Moment

Status = Literal["up", "silent", "waiting", "foreign"]


class Presence(Struct, frozen=True, kw_only=True):
    """Whether a node reports, and when it last did; times are by the server's clock as it is now.

    Attributes:
        status: ``waiting`` before the first report, then ``up`` or ``silent``.
        received_at: when the last report arrived.
        quiet_seconds: since then.
        reading_seconds: how old its newest reading is.
        silent_after: seconds without a report after which it is silent.
    """

    status: Status = "waiting"
    received_at: datetime | None = None
    quiet_seconds: float | None = None
    reading_seconds: float | None = None
    silent_after: float = NodeRow(node_id="").silent_after


def presence(row: NodeRow, moment: Moment, owes_since: float) -> Presence:
    """Return whether the node reports; it owes its reports since ``owes_since`` steady seconds."""
    frame = Frame.of(row, moment)
    if frame is None:
        return Presence()
    last = row.arrivals[-1]
    return Presence(
        status=_status(row, frame, moment, owes_since),
        received_at=moment_of(last.at + last.shift + round(moment.shift - last.shift)),
        quiet_seconds=frame.since,
        reading_seconds=frame.age(row.newest),
        silent_after=frame.limit,
    )


def status(row: NodeRow, moment: Moment, owes_since: float) -> Status:
    """Return the status alone, which is quicker."""
    frame = Frame.of(row, moment)
    return "waiting" if frame is None else _status(row, frame, moment, owes_since)


def _status(row: NodeRow, frame: Frame, moment: Moment, owes_since: float) -> Status:
    owed = min(frame.since, moment.steady - owes_since)
    if owed > frame.limit or (frame.age(row.newest) > frame.limit and _was_backlog(row)):
        return "silent"
    return "up"


def _was_backlog(row: NodeRow) -> bool:
    """Return whether the readings span much more time than their arrivals."""
    spanned = row.arrivals[-1].at - row.began
    return row.newest - row.first - spanned > row.silent_after
