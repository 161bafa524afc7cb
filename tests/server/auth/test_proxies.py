"""Clients behind proxies: who is believed, and what of it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plexd_server.auth import BehindProxies
from plexd_server.auth.proxies import parse_client, parse_proxies
from plexd_server.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

PROXIES = ["127.0.0.0/8", "10.0.0.0/8", "2001:db8:ffff::/48"]


async def seen(
    *headers: tuple[str, str],
    peer: str | None = "127.0.0.1",
    scheme: str = "http",
    trusted: Iterable[str] = PROXIES,
) -> tuple[str | None, str]:
    """The client's address and the scheme as the application sees them."""
    found: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        found.append(scope)

    scope: Any = {
        "type": "http",
        "scheme": scheme,
        "client": peer and (peer, 4711),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    receive_or_send: Any = None
    behind = BehindProxies(app, map(parse_proxies, trusted))
    await behind(scope, receive_or_send, receive_or_send)
    client = found[0]["client"]
    return client and client[0], found[0]["scheme"]


def forwarded_for(*lines: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", line) for line in lines]


def forwarded(*lines: str) -> list[tuple[str, str]]:
    return [("Forwarded", line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),  # the client's own comes first
        (["6.6.6.6", "192.0.2.7"], "192.0.2.7"),  # in a line of its own, too
        (["6.6.6.6, 10.9.9.9", "192.0.2.7", "10.1.1.1,127.0.0.2"], "192.0.2.7"),
        (["192.0.2.7:50123"], "192.0.2.7"),
        (["2001:db8::1"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["fe80::1%eth0"], "fe80::1"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7,,, ,"], "192.0.2.7"),
        (["10.0.0.1, 10.0.0.2"], "10.0.0.1"),  # a client on a proxy's machine
        (["192.0.2.7, 2001:db8:ffff::5"], "192.0.2.7"),
        (["192.0.2.7, unknown"], "127.0.0.1"),  # nothing before it can be believed
        (["192.0.2.7, unknown, 10.0.0.5"], "10.0.0.5"),
        (["evil.example"], "127.0.0.1"),
        (["1.2.3"], "127.0.0.1"),
        (["1.2.3.4.5"], "127.0.0.1"),
        (["192.0.2.7:port"], "127.0.0.1"),
        (["192.0.2.7:123456"], "127.0.0.1"),
        (["[192.0.2.7"], "127.0.0.1"),
        (["192.0.2.07"], "127.0.0.1"),
        (["\xb2.0.2.7"], "127.0.0.1"),
        (["192.0.2.7\x00"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    lines: list[str], client: str
) -> None:
    assert await seen(*forwarded_for(*lines)) == (client, "http")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=192.0.2.7"], ("192.0.2.7", "http")),
        (["For=192.0.2.7;Proto=HTTPS;by=203.0.113.43"], ("192.0.2.7", "https")),
        (['for="[2001:db8::1]:4711";proto=https'], ("2001:db8::1", "https")),
        (['for="192.0.2.7:80"'], ("192.0.2.7", "http")),
        (['for="192.0.2.7:_obf"'], ("192.0.2.7", "http")),
        (["for=192.0.2.7:80"], ("192.0.2.7", "http")),  # without the quotes it should have
        (["for=6.6.6.6, for=192.0.2.7, for=10.0.0.1;proto=https"], ("192.0.2.7", "http")),
        (["for=6.6.6.6", "for=192.0.2.7;proto=https,for=10.0.0.1"], ("192.0.2.7", "https")),
        (["for=192.0.2.7, for=_hidden"], ("127.0.0.1", "http")),
        (["for=_hidden;proto=https"], ("127.0.0.1", "https")),
        (["for=unknown"], ("127.0.0.1", "http")),
        (["for=192.0.2.7, for=unknown, for=10.0.0.5"], ("10.0.0.5", "http")),
        (["by=10.0.0.1;proto=https"], ("127.0.0.1", "https")),
        (["for=192.0.2.7;for=6.6.6.6"], ("127.0.0.1", "http")),
        (["for = 192.0.2.7"], ("127.0.0.1", "http")),
        (['for="192.0.2.7'], ("127.0.0.1", "http")),
        (["for"], ("127.0.0.1", "http")),
        ([";;;"], ("127.0.0.1", "http")),
        # A quote that a client left open swallows nothing that a proxy appends.
        (['for="6.6.6.6, for=192.0.2.7'], ("192.0.2.7", "http")),
        (['for="6.6.6.6, for=192.0.2.7;proto=https'], ("192.0.2.7", "https")),
        # Nor is what a client put into quotes taken for an element.
        (['for=192.0.2.7;host="a, for=6.6.6.6"'], ("127.0.0.1", "http")),
        (['for=192.0.2.7;host="a, for=6.6.6.6;b="'], ("127.0.0.1", "http")),
        (['for=192.0.2.7;host="a, for=6.6.6.6;b=\\""'], ("127.0.0.1", "http")),
    ],
)
async def test_the_standard_header_is_read_as_well(
    lines: list[str], expected: tuple[str, str]
) -> None:
    assert await seen(*forwarded(*lines)) == expected


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("192.0.2.1", PROXIES),
        ("11.0.0.1", PROXIES),
        ("::1", PROXIES),
        ("127.0.0.1", ["10.0.0.0/8"]),
        ("127.0.0.1", []),
        (None, PROXIES),
        ("", PROXIES),
        ("127.0.0.1", ["unix"]),
    ],
)
async def test_nobody_else_is_believed(peer: str | None, trusted: list[str]) -> None:
    headers = [
        *forwarded_for("6.6.6.6"),
        *forwarded("for=6.6.6.6;proto=https"),
        ("X-Forwarded-Proto", "https"),
    ]

    assert await seen(*headers, peer=peer, trusted=trusted) == (peer, "http")


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"])
async def test_a_listener_of_both_families_knows_its_proxy(peer: str) -> None:
    assert await seen(*forwarded_for("192.0.2.7"), peer=peer) == ("192.0.2.7", "http")


async def test_a_proxy_on_a_unix_socket_can_be_believed() -> None:
    headers = [*forwarded_for("6.6.6.6, 192.0.2.7"), ("X-Forwarded-Proto", "https")]

    assert await seen(*headers, peer=None, trusted=["unix"]) == ("192.0.2.7", "https")
    assert await seen(peer=None, trusted=["unix"]) == (None, "http")


@pytest.mark.parametrize(
    ("clients", "schemes", "scheme"),
    [
        (["192.0.2.7"], ["https"], "https"),
        (["192.0.2.7"], ["HTTPS"], "https"),
        (["192.0.2.7"], ["https, http"], "http"),  # the client's own comes first
        (["192.0.2.7"], ["https", "http"], "http"),
        (["192.0.2.7, 10.0.0.1"], ["https, http"], "https"),  # an entry for each of two proxies
        (["192.0.2.7, 10.0.0.1"], ["https"], "https"),
        (["unknown"], ["https"], "https"),
        ([], ["https"], "https"),
        (["192.0.2.7"], ["javascript"], "http"),
        (["192.0.2.7"], [""], "http"),
        (["192.0.2.7"], ["ws"], "http"),
    ],
)
async def test_the_scheme_is_that_of_the_client(
    clients: list[str], schemes: list[str], scheme: str
) -> None:
    headers = [*forwarded_for(*clients), *(("X-Forwarded-Proto", line) for line in schemes)]

    assert (await seen(*headers))[1] == scheme


async def test_a_proxy_that_speaks_tls_to_us_may_say_that_its_client_does_not() -> None:
    headers = [*forwarded_for("192.0.2.7"), ("X-Forwarded-Proto", "http")]

    assert await seen(*headers, scheme="https") == ("192.0.2.7", "http")
    assert await seen(*forwarded_for("192.0.2.7"), scheme="https") == ("192.0.2.7", "https")


async def test_the_older_header_counts_where_both_are_there() -> None:
    headers = [*forwarded("for=6.6.6.6;proto=https"), *forwarded_for("192.0.2.7")]

    assert await seen(*headers) == ("192.0.2.7", "http")


@pytest.mark.parametrize(
    "line",
    [
        "127.0.0.1," * 6500,
        "," * 65_000,
        "192.0.2.7," * 6500,
        "9" * 65_000,
        "1:" * 32_000,
        "[" * 65_000,
        'for="' + "a" * 65_000,
        "for=1;" * 10_000,
        " " * 65_000,
    ],
    ids=lambda line: line[:5],
)
async def test_a_hostile_long_header_costs_no_time_and_forges_nothing(line: str) -> None:
    for headers in (forwarded_for(line, "192.0.2.7"), forwarded(line, "for=192.0.2.7")):
        began = time.thread_time()
        assert (await seen(*headers))[0] == "192.0.2.7"
        assert (await seen(*headers[:1]))[0] in {"127.0.0.1", "192.0.2.7"}
        assert time.thread_time() - began < 0.2


_SENT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=200)


@given(sent=_SENT, is_one_line=st.booleans())
@example(sent='for="', is_one_line=True)
@example(sent='for="\\', is_one_line=True)
@example(sent="for=6.6.6.6;", is_one_line=False)
def test_whatever_a_client_sends_before_it_the_proxys_word_counts(
    sent: str, is_one_line: bool
) -> None:
    for name, word in (
        ("X-Forwarded-For", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7;proto=https"),
    ):
        lines = [f"{sent}, {word}"] if is_one_line else [sent, word]
        client, scheme = asyncio.run(seen(*((name, line) for line in lines)))
        assert client == "192.0.2.7"
        assert scheme == ("https" if name == "Forwarded" else "http")


@pytest.mark.parametrize(
    "text", ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "10.0.0.1/8", "plane.example", "", "10.0.0.0/33"]
)
def test_everybody_and_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no network of proxies, such as"):
        options.parse_proxies(text)


def test_a_network_may_be_written_in_ipv6_form() -> None:
    assert str(parse_proxies("::ffff:10.0.0.0/104")) == "10.0.0.0/8"
    assert str(parse_proxies("::1")) == "::1/128"


def test_an_address_has_one_form() -> None:
    assert str(parse_client("2001:DB8:0:0::1")) == "2001:db8::1"
