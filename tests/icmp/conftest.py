from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import Namespace, cable

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Pair:
    """Two namespaces and a cable: 10.77.0.1 here, 10.77.0.2 and fd77::2 there."""

    near: Namespace
    far: Namespace


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The test itself is in ``near``."""
    with Namespace() as near, Namespace() as far:
        cable(near, far, ["10.77.0.1/24", "fd77::1/64"], ["10.77.0.2/24", "fd77::2/64"])
        with near.inside():
            yield Pair(near, far)


@pytest.fixture
def silent(pair: Pair) -> Pair:
    """The far end's kernel answers no echo; a `Responder` may."""
    pair.far.run("sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    return pair
