"""A real proxy with TLS in front of the server: limits, log, cookie and logging out."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from http.cookies import SimpleCookie
from ipaddress import ip_network
from typing import TYPE_CHECKING

import aiohttp
import pytest
import trustme

from server.running import create_node, served
from support.processes import ending_with_us

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.tls import Authority

HAPROXY = shutil.which("haproxy") or ""

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not HAPROXY, reason="needs Debian's haproxy"),
]

# As its manual has it: forwardfor adds a line after what the client sent; Host has no port.
CONFIGURATION = """
global
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend outside
    bind fd@{descriptor} ssl crt {certificate}
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    http-request set-header Host plane.example
    default_backend inside
backend inside
    server plane {server}
"""


@contextmanager
def proxied(server: str, certificate: Path, directory: Path) -> Iterator[int]:
    """A haproxy that passes on to ``server``; the port it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        file = directory / "haproxy.cfg"
        text = CONFIGURATION.format(
            descriptor=listening.fileno(), certificate=certificate, server=server
        )
        file.write_text(text)
        with subprocess.Popen(
            ending_with_us(HAPROXY, "-db", "-f", str(file)),
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield listening.getsockname()[1]
            finally:
                process.terminate()


def client(address: str) -> aiohttp.ClientSession:
    """A client with an address of its own, which keeps no cookies."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=False)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def status(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(url, headers=sent, allow_redirects=False) as answer:
        return answer.status


async def test_behind_a_real_proxy_one_client_waits_and_the_others_do_not(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    certificate = tmp_path / "proxy.pem"
    made = authority.ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
    certificate.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    trusted = (ip_network("127.0.0.1"),)
    with (
        served(tmp_path / "d", allowed_hosts=("plane.example",), trusted_proxies=trusted) as server,
        proxied(server.url.removeprefix("http://"), certificate, tmp_path) as port,
    ):
        url = f"https://127.0.0.1:{port}"
        async with client("127.0.0.66") as guesser, client("127.0.0.2") as node:
            # What a client says of itself comes first, and is not believed.
            forged = {"X_Forwarded_For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
            wrong = [await status(guesser, f"{url}/login?token={n}", **forged) for n in range(31)]
            bearer = f"Bearer {token}"
            right = await status(node, f"{url}/v1/nodes/n1/latest", Authorization=bearer)
            other = await status(node, f"{url}/login?token=x")

            login = f"{url}/login?token={server.operator_token}"
            async with node.get(login, allow_redirects=False) as answer:
                cookie = SimpleCookie(answer.headers["Set-Cookie"])
            (name, morsel) = next(iter(cookie.items()))
            headers = {
                "Cookie": f"{name}={morsel.value}",
                "Origin": f"https://plane.example:{port}",
            }
            async with node.post(f"{url}/logout", allow_redirects=False, headers=headers) as answer:
                left = answer.status

    assert wrong == [401] * 30 + [429]
    assert (right, other, left) == (200, 401, 303)
    assert morsel["secure"]
    limited = [getattr(r, "address", "") for r in caplog.records if "wrong tokens" in r.message]
    assert limited == ["127.0.0.66"]
