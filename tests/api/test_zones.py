"""A control plane at a link-local address: how it is reached, and what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from icmp.namespaces import ROOT, Namespace
from plexd.api import Config, ControlPlane, TLSError, check_zone, with_plain_zone
from plexd.api.zones import without_zone
from support.servers import RawServer
from support.tls import Authority

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import Connection

ADDRESS = "fe80::9"
HERE = f"{ADDRESS}%lo"
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"peers":[]}'


@pytest.fixture
def network() -> Iterator[Namespace]:
    with Namespace() as made:
        made.run("ip", "address", "add", f"{ADDRESS}/64", "dev", "lo", "nodad")
        yield made


class Listening:
    """Answers every request and keeps the heads."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def talk(self, connection: Connection) -> None:
        self.heads.append(await connection.request())
        await connection.send(ANSWER)

    def server(self, tls: ssl.SSLContext | None = None) -> RawServer:
        return RawServer(self.talk, tls=tls, host=HERE)


@ROOT[0]
@ROOT[1]
@pytest.mark.parametrize("zone", ["%25lo", "%lo"])
async def test_a_proxy_is_reached_by_an_address_with_a_zone(network: Namespace, zone: str) -> None:
    listening = Listening()
    with network.inside():
        async with listening.server() as proxy:
            through = f"http://[{ADDRESS}{zone}]:{proxy.port}"
            async with ControlPlane(Config("http://plane.example", proxy=through)) as plane:
                assert await plane.fetch_peers("node-1") == []
    assert b"\r\nHost: plane.example\r\n" in listening.heads[0]


@ROOT[0]
@ROOT[1]
@pytest.mark.parametrize("zone", ["%25lo", "%lo"])
async def test_an_address_with_a_zone_is_reached_and_the_zone_stays_here(
    network: Namespace, zone: str
) -> None:
    listening = Listening()
    with network.inside():
        async with listening.server() as server:
            port = server.port
            url = f"http://[{ADDRESS}{zone}]:{port}"
            async with ControlPlane(Config(url)) as plane:
                assert await plane.fetch_peers("node-1") == []
    (head,) = listening.heads
    assert f"\r\nHost: [{ADDRESS}]:{port}\r\n".encode() in head
    assert head.count(b"Host:") == 1
    assert b"%" not in head


@ROOT[0]
@ROOT[1]
async def test_a_certificate_is_for_the_address_without_its_zone(
    network: Namespace, tmp_path: Path
) -> None:
    authority = Authority.make(tmp_path)
    with network.inside():
        for name, is_right in ((ADDRESS, True), ("fe80::8", False)):
            async with Listening().server(authority.server(name)) as server:
                url = f"https://[{ADDRESS}%25lo]:{server.port}"
                config = Config(url, ca_file=str(authority.ca_file))
                async with ControlPlane(config) as plane:
                    if is_right:
                        assert await plane.fetch_peers("node-1") == []
                        continue
                    with pytest.raises(TLSError, match=r"the URL needs a name .*: FE80:.*8"):
                        await plane.fetch_peers("node-1")


@pytest.mark.parametrize(
    ("url", "plain", "shown"),
    [
        ("http://[fe80::1%25eth0]/x", "http://[fe80::1%eth0]/x", ("[fe80::1]", "fe80::1")),
        ("https://[FE80::1%25e.1]:8", "https://[FE80::1%e.1]:8", ("[FE80::1]:8", "FE80::1")),
        ("http://[fe80::1%eth0]:8", "http://[fe80::1%eth0]:8", ("[fe80::1]:8", "fe80::1")),
        ("http://[::1]:8/%25a]", "http://[::1]:8/%25a]", None),
        ("http://a/[fe80::1%25eth0]", "http://a/[fe80::1%25eth0]", None),
        ("", "", None),
    ],
)
def test_a_zone_is_only_in_the_host(url: str, plain: str, shown: tuple[str, str] | None) -> None:
    assert with_plain_zone(url) == plain
    assert with_plain_zone(plain) == plain
    assert without_zone(url) == without_zone(plain) == shown


@pytest.mark.parametrize("url", ["http://[fe80::1]:8", "http://[fd00::1%25eth0]:8"])
def test_the_client_refuses_a_zone_that_is_missing_or_in_the_wrong_place(url: str) -> None:
    with pytest.raises(ValueError, match="link-local address"):
        check_zone(url)
    with pytest.raises(ValueError, match="link-local address"):
        ControlPlane(Config(url))
