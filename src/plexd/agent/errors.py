"""The errors that end a command early. Each text is one sentence for the operator.

Exception
├── SettingsError       the configuration is wrong: exit status 2
└── NotReadyError       the machine is not ready for what was asked: exit status 1
    └── IdentityError   the node does not know who it is
"""

from __future__ import annotations


class SettingsError(Exception):
    """A setting is wrong; the text is one line, ``FILE:LINE: KEY: what is wrong``.

    ``place`` is ``FILE:LINE``, ``FILE`` or the name of an environment variable; ``key`` is the
    dotted path, empty if the place says enough.
    """

    def __init__(self, place: str, key: str, reason: str) -> None:
        super().__init__(place, key, reason)
        self.place = place
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.key, self.reason) if part)


class NotReadyError(Exception):
    """Something outside the program is missing or wrong; the text says what to do."""


class IdentityError(NotReadyError):
    """The identity file is missing, unsafe or garbled. The text never quotes its contents."""
