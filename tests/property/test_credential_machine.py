"""The local endpoint's credential against a model of a few lines, in any order of events.

The model: a token is used for five minutes and then until a newer one can be fetched; nothing is
fetched while it is fresh, at most one fetch is under way, and of fetches there are at most ten at
once and one every fifteen seconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from plexd.api import APIError, Secret, SecretResponse, TransportError
from plexd.log_once import LogOnce
from plexd.metrics.errors import CredentialError
from plexd.metrics.reporters.credential import Credential
from plexd.metrics.testing import ManualClock
from plexd.nodeapi import seal_secret

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

NSK = b"0123456789abcdef" * 2
LOGGER = logging.getLogger("plexd.test.credential")
TTL, PATIENCE, REFILL = 300.0, 60.0, 15.0

FAILURES: dict[str, Exception] = {
    "down": APIError(503, "down"),
    "refused": APIError(403, "no"),
    "gone": APIError(404, "none"),
    "lost": TransportError("reset"),
}


class RotatingFetcher:
    """Returns the newest token, fails, or hangs, depending on ``mode`` when a fetch begins."""

    def __init__(self) -> None:
        self.version = 1
        self.mode = "well"
        self.fetches = 0
        self.under_way = 0
        self.most_under_way = 0
        self.released = asyncio.Event()

    async def fetch_secret(self, node_id: str, key: str) -> SecretResponse:
        self.fetches += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        version, mode = self.version, self.mode
        try:
            await asyncio.sleep(0)  # no fetch is over before its concurrent callers have asked
            if mode == "hangs":
                await self.released.wait()
            elif mode != "well":
                raise FAILURES[mode]
            ciphertext, nonce = seal_secret(NSK, f"{node_id}:{version}")
            return SecretResponse(key=key, ciphertext=ciphertext, nonce=nonce, version=version)
        finally:
            self.under_way -= 1


class CredentialMachine(RuleBasedStateMachine):
    """Users, endpoint, control plane and time, in any order."""

    @initialize()
    def make(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.fetcher = RotatingFetcher()
        warnings = LogOnce(LOGGER, "metrics", clock=self.clock)
        self.credential = Credential(
            self.fetcher, NSK, "n", "key", warnings=warnings, clock=self.clock
        )
        self.users: set[asyncio.Task[Secret]] = set()
        # The model.
        self.held = self.on_the_way = 0
        self.since = -TTL
        self.allowance, self.looked = 10.0, 0.0

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    def allow(self) -> bool:
        now = self.clock.monotonic()
        self.allowance = min(10.0, self.allowance + (now - self.looked) / REFILL)
        self.looked = now
        if self.allowance < 1 - 1e-6:
            return False
        self.allowance -= 1
        return True

    @rule(mode=st.sampled_from(["well", "hangs", *FAILURES]))
    def the_control_plane_changes(self, mode: str) -> None:
        self.fetcher.mode = mode

    @rule()
    def the_token_is_rotated(self) -> None:
        self.fetcher.version += 1

    @rule(seconds=st.sampled_from([0.001, 1.0, 14.0, 15.0, 59.0, 61.0, 299.999, 300.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        if not self.users:
            self.run(self.clock.advance(seconds))

    @rule(count=st.integers(1, 20))
    def some_ask(self, count: int) -> None:
        """Concurrent calls: one fetch at most, and one outcome for all of them."""
        if self.users:
            return
        fresh = self.clock.monotonic() - self.since < TTL
        fetches, mode, version = self.fetcher.fetches, self.fetcher.mode, self.fetcher.version

        async def ask() -> None:
            self.users = {asyncio.create_task(self.credential.token()) for _ in range(count)}
            await self.clock.advance(0)

        self.run(ask())
        fetched = not fresh and self.allow()
        assert self.fetcher.fetches - fetches == int(fetched)
        if fetched and mode == "hangs":
            assert not any(user.done() for user in self.users)
            self.on_the_way = version
            return
        if fetched and mode == "well":
            self.held, self.since = version, self.clock.monotonic()
        self.check_users()

    def check_users(self) -> None:
        users, self.users = self.users, set()
        for user in users:
            assert user.done()
            if self.held:
                assert user.result().reveal() == f"n:{self.held}"
            else:
                assert isinstance(user.exception(), CredentialError)

    @rule(released=st.booleans())
    def the_hanging_fetch_ends(self, *, released: bool) -> None:
        """With the token of its beginning, or after a minute without any."""
        if not self.users:
            return

        async def end() -> None:
            if released:
                self.fetcher.released.set()
                await self.clock.advance(0)
                self.fetcher.released.clear()
            else:
                await self.clock.advance(PATIENCE)

        self.run(end())
        if released:
            self.held, self.since = self.on_the_way, self.clock.monotonic()
        self.check_users()

    @rule()
    def the_callers_give_up(self) -> None:
        """A cancelled fetch leaves things as they were."""

        async def cancel() -> None:
            users, self.users = self.users, set()
            for user in users:
                user.cancel()
            if users:
                await asyncio.wait(users)

        self.run(cancel())

    @rule()
    def the_endpoint_refuses_the_token(self) -> None:
        held = self.credential._token
        if held is not None:
            self.credential.expire(held)
            self.since = self.clock.monotonic() - TTL

    @rule()
    def the_endpoint_refuses_an_older_token(self) -> None:
        self.credential.expire(Secret("n:0"))

    @invariant()
    def never_two_fetches_at_once(self) -> None:
        if hasattr(self, "fetcher"):
            assert self.fetcher.most_under_way <= 1

    @invariant()
    def what_is_held_is_what_was_fetched_last(self) -> None:
        if hasattr(self, "credential"):
            held = self.credential._token
            assert (held.reveal() if held else "") == (f"n:{self.held}" if self.held else "")

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.the_callers_give_up()
            self.loop.close()


TestCredential = pytest.mark.slow(CredentialMachine.TestCase)
TestCredential.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
