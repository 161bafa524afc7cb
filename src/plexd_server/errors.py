"""What can go wrong in the server, classed by who has to act.

Exception
└── ServerError
    ├── StartError         the operator: it cannot start, and the message says what to do
    │   └── JournalDamaged acknowledged points cannot be read
    ├── SimulationError    the operator: a server refuses what is simulated
    ├── SealError          the operator: a sealed value and the master key do not belong together
    ├── RegistryError      the caller: an id, a number or a text that is not allowed
    │   ├── NodeConflict   the id, key or address belongs to another node
    │   ├── TokenRefused   a bootstrap token that is unknown, used up or expired
    │   ├── UnknownNode    no node has this id
    │   ├── UnknownSecret  the node has no secret of this name
    │   └── NoNodeKey      the node has no key to seal secrets with
    └── StoreError         nobody yet: the answer is 503, and the node sends again
        ├── RegistryUnavailable  the registry cannot be read or written now
        ├── FilesReplaced  a file of the data directory was moved, deleted or replaced
        ├── StoreBusy      the queue of writes is full
        └── StoreClosed    the store is shutting down
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ServerError(Exception):
    """The root of the tree; its text is one sentence for a person."""


class StartError(ServerError):
    """The server cannot start. The text names the cause and the way out."""


class JournalDamaged(StartError):  # noqa: N818 -- a state of the disk, found at the start
    """Points that are acknowledged but in no table yet cannot be read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged: {reason}; put a backup in its place, or move it and the journal's "
            "later files away to go on without the points in them"
        )


class SimulationError(ServerError):
    """Simulated nodes cannot enrol or report; the text holds the server's own words."""


class SealError(ServerError):
    """A sealed value does not open: it was altered, moved, or sealed with another key."""


class RegistryError(ServerError):
    """The registry refuses a request; nothing changed."""


class NodeConflict(RegistryError):  # noqa: N818 -- a state, not a fault
    """Another node has this id, public key or mesh address."""


class TokenRefused(RegistryError):  # noqa: N818 -- the answer to a question
    """A bootstrap token that enrols nobody; the text is the same for every reason."""


class UnknownNode(RegistryError):  # noqa: N818 -- the answer to a question
    """No node has this id."""


class UnknownSecret(RegistryError):  # noqa: N818 -- the answer to a question
    """The node has no secret of this name."""


class NoNodeKey(RegistryError):  # noqa: N818 -- a state, not a fault
    """No key of the node is kept, so nothing can be sealed for it."""


class StoreError(ServerError):
    """The store could not do what was asked, and wrote nothing.

    Clients see the text, so it names no path and no cause; the cause is chained and logged.
    """


class RegistryUnavailable(StoreError):  # noqa: N818 -- a state, not a fault
    """The registry cannot be read or written now: a lock, a full disk."""


class FilesReplaced(StoreError):  # noqa: N818 -- a state of the disk
    """A file of the data directory was moved, deleted or replaced while it was open."""


class StoreBusy(StoreError):  # noqa: N818 -- a state, not a fault
    """The queue of writes is full; the sender tries again in a moment."""


class StoreClosed(StoreError):  # noqa: N818 -- a state, not a fault
    """The store is shutting down."""
