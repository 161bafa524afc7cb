"""What can go wrong inside the pipeline.

Exception
├── CollectError        a collector failed: logged, counted, tried again at the next tick
├── ClashError          another machine sent points under these names: rename and try again
├── CredentialError     no bearer token for the local endpoint, so nothing was sent there
└── ValueError
    └── ConfigError     the configuration cannot work: refuse to start
"""

from __future__ import annotations


class CollectError(Exception):
    """A collector failed. The text is ``metrics: <group>: <cause>``; the cause is chained."""


class ClashError(Exception):
    """Points of another machine were received under ``epoch``; nothing of the batch was stored."""

    def __init__(self, epoch: str) -> None:
        super().__init__(epoch)
        self.epoch = epoch

    def __str__(self) -> str:
        return f"another machine reports under epoch {self.epoch}; the points were renamed"


class CredentialError(Exception):
    """No credential for the local endpoint, fresh or cached. The cause is chained."""


class ConfigError(ValueError):
    """A value that the seed's validation tables refuse, in exactly their words."""


def reason_of(error: BaseException) -> str:
    """The error's text, or its name where it has none."""
    return str(error) or type(error).__name__
