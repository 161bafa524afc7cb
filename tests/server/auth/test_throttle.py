"""Guessing and fast callers wait; they cost no memory and lock no neighbour out, ever."""

from __future__ import annotations

import asyncio
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Request

from plexd.metrics.testing import ManualClock
from plexd.rates import TokenBuckets
from plexd_server.auth import Gate, OperatorKey
from plexd_server.auth.throttle import Recent, address_of, retry_after
from plexd_server.registry import Registry
from plexd_server.web.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPERATOR = "operator-token-of-this-test"
COOKIE = "c"


class Askers:
    """A gate, and requests to it from any address."""

    def __init__(self, registry: Registry, clock: ManualClock, **options: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.waits = list[str]()
        key = OperatorKey.of(OPERATOR)
        self.gate = Gate(registry, key, cookie_name=COOKIE, clock=clock, **options)

    async def status(self, token: str, address: str = "192.0.2.1", node_id: str = "n1") -> int:
        try:
            await self.gate.require_reader(request(token, address), node_id)
        except Problem as problem:
            self.waits += [value for name, value in problem.headers.items() if "Retry" in name]
            return problem.status
        return 200

    async def guess(self, number: int, address: str = "192.0.2.1") -> list[int]:
        return [await self.status(f"guess-{n}", address) for n in range(number)]


def request(
    token: str = "", address: str = "192.0.2.1", method: str = "GET", **headers: str
) -> Request[Any, Any, Any]:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    if token:
        fields.append((b"authorization", f"Bearer {token}".encode()))
    scope: Any = {
        "type": "http",
        "method": method,
        "path": "/v1/nodes/n1/latest",
        "headers": fields,
        "client": (address, 1),
        "query_string": b"",
    }
    return Request(scope)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    clock = ManualClock()
    made = Registry(tmp_path, clock=clock)
    yield made
    made.close()


@pytest.fixture
def askers(registry: Registry) -> Askers:
    return Askers(registry, ManualClock())


async def test_an_address_that_guesses_has_to_wait(askers: Askers) -> None:
    askers.registry.create_node("n1")

    assert await askers.guess(32) == [401] * 30 + [429] * 2
    assert await askers.guess(1, "192.0.2.2") == [401]
    await askers.clock.advance(5)
    assert await askers.status("guess-after") == 401
    assert await askers.status("guess-after-that") == 429
    assert set(askers.waits) == {"5"}


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_right_token_passes_however_many_wrong_ones_came_from_its_address(
    askers: Askers, restarted: bool
) -> None:
    node = askers.registry.create_node("n1").auth_token
    cookie = await askers.gate.login(request(), OPERATOR)
    await askers.guess(1000)
    if restarted:
        askers = Askers(askers.registry, askers.clock)
        await askers.guess(1000)

    assert [await askers.status(node), await askers.status(OPERATOR)] == [200, 200]
    assert await askers.gate.login(request(), OPERATOR) is not None
    assert await askers.gate.is_operator(request(cookie=f"{COOKIE}={cookie}"))
    assert await askers.status("guess-1001") == 429


async def test_a_right_token_passes_beside_a_cookie_that_has_ended(askers: Askers) -> None:
    node = askers.registry.create_node("n1").auth_token
    await askers.guess(30)

    for token in (node, OPERATOR):
        await askers.gate.require_reader(request(token, cookie=f"{COOKIE}=old"), "n1")


async def test_networks_of_ipv6_wait_apart(askers: Askers) -> None:
    assert await askers.guess(31, "2001:db8:0:1::1") == [401] * 30 + [429]

    assert await askers.status("guess", "2001:db8:0:1:ffff::2") == 429
    assert await askers.status("guess", "2001:db8:0:2::1") == 401


async def test_a_node_with_an_old_identity_locks_nobody_out(askers: Askers) -> None:
    assert {await askers.status("of-long-ago") for _ in range(200)} == {401}

    assert await askers.status("another") == 401


async def test_wrong_cookies_and_logins_count_as_guesses(askers: Askers) -> None:
    for n in range(15):
        assert not await askers.gate.is_operator(request(cookie=f"{COOKIE}={n}"))
        assert await askers.gate.login(request(), f"guess-{n}") is None

    with pytest.raises(Problem, match="429"):
        await askers.gate.is_operator(request(cookie=f"{COOKIE}=right?"))
    with pytest.raises(Problem, match="429"):
        await askers.gate.login(request(), "right?")


async def test_tokens_sent_to_a_page_count_as_guesses(askers: Askers) -> None:
    for n in range(30):
        assert not await askers.gate.is_operator(request(f"guess-{n}"))

    with pytest.raises(Problem, match="429"):
        await askers.gate.is_operator(request("guess-30"))
    assert await askers.gate.is_operator(request(OPERATOR))


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:8080"},
    {"sec-fetch-site": "none, cross-site"},
    {"origin": "http://evil.example"},
    {"origin": "http://localhost:8081"},
    {"origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_a_login_from_another_site_is_refused_before_it_counts(
    askers: Askers, headers: dict[str, str]
) -> None:
    headers = {"host": "localhost:8080", **headers}
    for token in (*(f"guess-{n}" for n in range(40)), OPERATOR):
        with pytest.raises(Problem, match="403"):
            await askers.gate.login(request(**headers), token)

    assert await askers.gate.login(request(), "wrong") is None
    assert await askers.gate.login(request(**headers), "") is None  # the page without a link


@pytest.mark.parametrize(
    "headers",
    [{}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}, {"origin": "http://h"}],
    ids=str,
)
async def test_a_login_that_was_typed_or_is_of_our_own_page_passes(
    askers: Askers, headers: dict[str, str]
) -> None:
    assert await askers.gate.login(request(host="h", **headers), OPERATOR) is not None


async def test_a_revoked_token_does_not_pass_for_having_been_right(askers: Askers) -> None:
    node = askers.registry.create_node("n1").auth_token
    assert await askers.status(node) == 200
    askers.registry.revoke_node("n1")
    await askers.clock.advance(6)

    assert await askers.status(node) == 401


@pytest.mark.parametrize("years", [30, -30])
async def test_a_step_of_the_clock_neither_ends_a_wait_nor_begins_one(
    askers: Askers, years: int
) -> None:
    node = askers.registry.create_node("n1").auth_token
    await askers.guess(30)

    askers.clock.step(timedelta(days=365 * years))

    assert await askers.status("guess-again") == 429
    assert await askers.status(node) == 200
    assert await askers.guess(1, "192.0.2.2") == [401]
    await askers.clock.advance(5)
    assert await askers.status("guess-after") == 401


async def test_a_node_over_its_rate_waits_and_others_do_not(registry: Registry) -> None:
    askers = Askers(registry, ManualClock(), node_rate=2.0)
    one, two = registry.create_node("n1").auth_token, registry.create_node("n2").auth_token

    assert [await askers.status(one) for _ in range(21)] == [200] * 20 + [429]
    assert await askers.status(two, node_id="n2") == 200
    await askers.clock.advance(1)
    assert [await askers.status(one) for _ in range(3)] == [200, 200, 429]


PLANE = "plane.example"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("localhost:8080", "http://localhost:8080", True),
        ("localhost:8080", "https://localhost:8080", True),  # a proxy ends TLS in front of us
        ("localhost:8080", "http://localhost:8081", False),
        ("localhost:8080", "http://127.0.0.1:8080", False),
        ("localhost:8080", "http://evil.example", False),
        ("localhost:8080", "http://localhost:8080.evil.example", False),
        ("localhost:8080", "http://a@localhost:8080", False),
        ("localhost:8080", "localhost:8080", False),
        ("localhost:8080", "ftp://localhost:8080", False),
        ("localhost:8080", "null", False),
        ("localhost:8080", "", False),
        ("localhost:8080", "http://[", False),
        (PLANE, "https://plane.example:8443", True),  # a proxy on a port that Host lacks
        (f"{PLANE}:443", "https://plane.example", True),
        (f"{PLANE}:80", "https://plane.example", False),
        ("127.0.0.1:8080", "https://plane.example:8443", True),  # a proxy that replaces Host
        ("127.0.0.1:8080", "https://evil.example", False),
        (PLANE, "https://plane.example.evil.example", False),
        (PLANE, "https://sub.plane.example", False),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("[::1]", "http://[::1]:8080", True),
    ],
)
async def test_the_cookie_changes_something_only_from_our_own_pages(
    registry: Registry, host: str, origin: str, passes: bool
) -> None:
    askers = Askers(registry, ManualClock(), hosts=[PLANE])
    cookie = await askers.gate.login(request(), OPERATOR)
    headers = {"cookie": f"{COOKIE}={cookie}", "host": host, "origin": origin}

    assert await askers.gate.is_operator(request(**headers))  # reading
    if passes:
        assert await askers.gate.is_operator(request(method="POST", **headers))
    else:
        with pytest.raises(Problem, match="403"):
            await askers.gate.is_operator(request(method="POST", **headers))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
async def test_the_browsers_own_word_outranks_an_origin(askers: Askers, site: str) -> None:
    cookie = await askers.gate.login(request(), OPERATOR)
    headers = {"cookie": f"{COOKIE}={cookie}", "host": "h", "origin": "http://h"}

    assert await askers.gate.is_operator(
        request(method="POST", **headers, **{"sec-fetch-site": "same-origin"})
    )
    with pytest.raises(Problem, match="403"):
        await askers.gate.is_operator(request(method="POST", **headers, **{"sec-fetch-site": site}))


async def test_a_page_without_tls_changes_nothing_where_the_browser_speaks_https(
    askers: Askers,
) -> None:
    cookie = await askers.gate.login(request(), OPERATOR)
    asked = request(method="POST", cookie=f"{COOKIE}={cookie}", host="h", origin="http://h")
    asked.scope["scheme"] = "https"

    with pytest.raises(Problem, match="403"):
        await askers.gate.is_operator(asked)


async def test_without_an_origin_the_cookie_changes_nothing_and_the_token_does(
    askers: Askers,
) -> None:
    cookie = await askers.gate.login(request(), OPERATOR)

    with pytest.raises(Problem, match="403"):
        await askers.gate.is_operator(request(method="POST", cookie=f"{COOKIE}={cookie}"))
    assert await askers.gate.is_operator(request(OPERATOR, method="POST"))


async def test_refusals_are_logged_a_few_times_a_minute(
    askers: Askers, caplog: pytest.LogCaptureFixture
) -> None:
    mallory = askers.registry.create_node("mallory").auth_token

    assert {await askers.status(mallory) for _ in range(50)} == {403}

    assert [record.message for record in caplog.records] == ["access refused"] * 3
    told: Any = caplog.records[0]
    assert (told.by, told.address, told.path) == ("mallory", "192.0.2.1", "/v1/nodes/n1/latest")
    assert mallory not in caplog.text


@pytest.mark.slow
async def test_what_is_counted_stays_within_bounds(askers: Askers) -> None:
    tracemalloc.start()
    buckets, seen = TokenBuckets(askers.clock, rate=1, burst=5, size=1000), Recent(1000)
    for n in range(1000):
        buckets.take(n)
        seen.add(n)
    before = tracemalloc.get_traced_memory()[0]
    for n in range(100_000):
        buckets.take(n)
        seen.add(n)
        if not n % 10_000:
            await asyncio.sleep(0)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert after - before < 200_000
    assert 99_999 in seen
    assert 5 not in seen


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_an_ipv6_network_counts_as_one_sender(host: str, counted: str) -> None:
    assert address_of(request(address=host)) == counted


@pytest.mark.parametrize(("seconds", "told"), [(0.01, "1"), (1.2, "2"), (99_999, "3600")])
def test_the_wait_is_given_in_whole_seconds(seconds: float, told: str) -> None:
    assert retry_after(seconds) == {"Retry-After": told}
