"""One server for the tests that only talk to one; those about starting and stopping make theirs."""

from __future__ import annotations

import resource
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import pytest

from plexd_server.upkeep.quiesce import writes_paused
from server.running import SERVED, Client, Server, create_node, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


@dataclass
class Shared:
    """A running server; what n2 and n3 report is a single test's business each."""

    server: Server
    n1: str
    n2: str
    n3: str


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    data_dir = tmp_path_factory.mktemp("plane") / "data"
    tokens = [create_node(data_dir, name)["auth_token"] for name in ("n1", "n2", "n3")]
    with served(data_dir) as server:
        yield Shared(server, *tokens)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


@pytest.fixture
def n1(shared: Shared, session: aiohttp.ClientSession) -> Client:
    """Speaks as the node n1."""
    return Client(session, shared.server.url, shared.n1)


@pytest.fixture
def operator(shared: Shared, session: aiohttp.ClientSession) -> Client:
    """Speaks as the operator."""
    return Client(session, shared.server.url, shared.server.operator_token)


@pytest.fixture
def nobody(shared: Shared, session: aiohttp.ClientSession) -> Client:
    """Speaks without a token."""
    return Client(session, shared.server.url)


@pytest.fixture
def servers_hold_still() -> Iterator[None]:
    """No server in this process writes anything: a limit of the process would strike it as well."""
    with ExitStack() as held:
        for data_dir in SERVED:
            held.enter_context(writes_paused(data_dir))
        yield


@pytest.fixture
def files_may_grow_to(servers_hold_still: None) -> Iterator[Callable[[int], None]]:
    """Sets how large this process's files may grow; the kernel's signal about it is ignored."""
    del servers_hold_still
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
