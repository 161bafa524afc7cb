"""What can go wrong in the server, classed by who has to act.

Exception
└── ServerError
    ├── StartError         the operator: it cannot start, and the message says what to do
    ├── OutputError        the operator: what was asked for cannot be printed
    ├── RegistryError      the operator: a node that exists already, or an id that is not allowed
    └── StoreError         nobody yet: the answer is 503, and the sender tries again
        ├── StoreBusy      more is waiting to be written than the store takes on
        └── StoreClosed    it is shutting down
"""

from __future__ import annotations

__all__ = [
    "OutputError",
    "RegistryError",
    "ServerError",
    "StartError",
    "StoreBusy",
    "StoreClosed",
    "StoreError",
]


class ServerError(Exception):
    """The root of the tree; its text is one sentence for a person."""


class StartError(ServerError):
    """The server cannot start. The text names the cause and the way out."""


class OutputError(ServerError):
    """Standard output cannot be written."""


class RegistryError(ServerError):
    """The registry refuses: a duplicate or malformed node id."""


class StoreError(ServerError):
    """The store could not do what was asked; nothing of it was written.

    The text is shown to clients: it names no path and no cause, which is chained and logged.
    """


class StoreBusy(StoreError):  # noqa: N818 -- a state, not a fault
    """The queue of writes is full; trying again in a moment is right."""


class StoreClosed(StoreError):  # noqa: N818 -- a state, not a fault
    """The store takes no more work."""
