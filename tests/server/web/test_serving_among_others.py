"""The server beside proxies, service managers and terminals: what it listens on and answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plexd_server.errors import StartError
from plexd_server.web.listeners import Address, bind
from plexd_server.web.negotiation import accepts_gzip, is_known
from server.running import Client, connected, running, served

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from server.conftest import Shared

HANDED = """
import os, socket, sys
made = socket.create_server(("127.0.0.1", 0))
if made.fileno() != 3:
    os.dup2(made.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, "-m", "plexd_server", *sys.argv[1:]])
"""


def heard(url: str, request: bytes) -> bytes:
    with connected(url) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
@pytest.mark.parametrize("host", [b"", b"Host: 10.0.0.5:8080\r\n"])
def test_health_is_answered_to_any_host_and_http_1_0(
    shared: Shared, path: str, host: bytes
) -> None:
    request = f"GET {path} HTTP/1.0\r\n".encode() + host + b"\r\n"

    assert heard(shared.server.url, request).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/readyz", "/login", "/static/node.js", "/v1/openapi.json"])
@pytest.mark.parametrize("requests", [1, 3])
def test_a_client_that_says_that_it_asks_no_more_is_answered(
    shared: Shared, path: str, requests: int
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with connected(shared.server.url) as connection:
        connection.sendall(request * requests)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    assert answer.count(b"HTTP/1.1 ") == requests


def test_a_client_that_ends_within_its_request_gets_no_answer(shared: Shared) -> None:
    head = b"POST /v1/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for begun in (b"", head, head + b"Content-Length: 9\r\n\r\nhalf"):
        with connected(shared.server.url) as connection:
            connection.sendall(begun)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65_536) == b""


@pytest.mark.parametrize("path", ["/healthz", "/login", "/static/app.css", "/v1/openapi.json"])
def test_head_is_get_without_its_body(shared: Shared, path: str) -> None:
    rest = f" {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    full, bare = (heard(shared.server.url, method + rest) for method in (b"GET", b"HEAD"))
    fields = [
        sorted(each.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")) for each in (full, bare)
    ]

    assert bare.endswith(b"\r\n\r\n")
    assert [x for x in fields[0] if b"date" not in x] == [x for x in fields[1] if b"date" not in x]


async def test_allow_names_head(nobody: Client) -> None:
    answer = await nobody.ask("DELETE", "/healthz")

    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_white_space_around_a_value_is_no_part_of_it(shared: Shared) -> None:
    token = shared.server.operator_token.encode()
    request = b"GET /v1/nodes HTTP/1.1\r\nHost: localhost \t\r\nAuthorization:  Bearer " + token

    assert heard(shared.server.url, request + b" \r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


@pytest.mark.parametrize("before", [b"Bearer ", b"bearer   ", b"\tBEARER "])
def test_a_token_has_any_spaces_between_it_and_its_scheme(shared: Shared, before: bytes) -> None:
    request = b"GET /v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization:"
    token = shared.server.operator_token.encode()

    answer = heard(shared.server.url, request + before + token + b"\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("size", "status"), [(65_536, b"200"), (65_537, b"400"), (70_000, b"400")])
def test_a_head_has_64_kib_to_its_last_byte(shared: Shared, size: int, status: bytes) -> None:
    begin = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
    request = begin + b"x" * (size - len(begin) - 4) + b"\r\n\r\n"

    assert heard(shared.server.url, request)[9:12] == status


@pytest.mark.parametrize(
    ("accepted", "packs"),
    [
        ("gzip", True),
        ("*", True),
        ("x-gzip;q=0.1", True),
        ("", False),
        ("gzip;q=0, identity", False),
        ("gzip;q=0.000, *", False),
        ("gzip;q=0.5, identity", False),
        ("gzipped", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(accepted: str, packs: bool) -> None:
    assert accepts_gzip([accepted]) is packs


@pytest.mark.parametrize("sent", ['"a"', 'W/"a"', '"x", "a"', "*", 'W/"x,y" , W/"a"'])
def test_an_entity_tag_is_found_in_every_form(sent: str) -> None:
    assert is_known('"a"', [sent])
    assert not is_known('"b"', [sent.replace("*", "")])


@pytest.mark.slow
async def test_hanging_up_reads_the_token_anew_and_never_kills(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    file = tmp_path / "token"
    file.write_text("a" * 32)
    file.chmod(0o600)
    with running(tmp_path / "d", "--operator-token-file", file) as server:
        file.write_text("b" * 32)
        server.process.send_signal(signal.SIGHUP)
        while "operator token read anew" not in (tmp_path / "d.log").read_text():
            assert server.process.poll() is None
        assert (await Client(session, server.url, "b" * 32).get("/v1/nodes")).status == 200
        assert (await Client(session, server.url, "a" * 32).get("/v1/nodes")).status == 401
        assert server.stop() == 0


@pytest.mark.slow
def test_a_unix_socket_replaces_a_stale_one_and_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with running(tmp_path / "d", listen=f"unix:{path}") as server:
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 401")
        assert server.stop() == 0
    assert not path.exists()


@pytest.mark.slow
def test_a_socket_that_was_handed_over_is_served(tmp_path: Path) -> None:
    line = [sys.executable, "-c", HANDED, "serve", "--data-dir", str(tmp_path / "d")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        assert not url.endswith(":8080")
        assert heard(url, b"GET /livez HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.slow
def test_the_ipv6_wildcard_serves_both_families_and_prints_a_link_that_works(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "d", listen="[::]:0") as server:
        port = int(server.url.rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()
        assert server.login.startswith(f"http://127.0.0.1:{port}/login?token=")


async def test_every_address_works_below_a_base_path(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d", base_path="/plexd") as server:
        client = Client(session, server.url)
        assert "/plexd/login?token=" in server.login
        entered = await client.get(server.login.removeprefix(server.url))
        assert entered.headers["Location"] == "/plexd/"
        assert "path=/plexd" in entered.headers["Set-Cookie"].lower()
        assert (await client.get("/plexd")).headers["Location"] == "/plexd/"
        assert (await client.get("/plexd/healthz", Host="any")).status == 200
        assert (await client.get("/plexd/static/app.css")).status == 200
        page = (await client.get("/plexd/login")).body
        assert b'"/plexd/static/app.css"' in page
        assert b'="/static' not in page


@pytest.mark.parametrize("path", ["/plexd/mesh", "/mesh", "/%70lexd/mesh", "/plexd%2Fmesh"])
async def test_below_a_base_path_a_login_leads_back_however_the_path_was_written(
    tmp_path: Path, session: aiohttp.ClientSession, path: str
) -> None:
    with served(tmp_path / "d", base_path="/plexd") as server:
        client = Client(session, server.url)
        login = server.login.removeprefix(server.url)
        rest = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        asked = heard(server.url, f"GET {path}?link=a~b {rest}".encode())
        returned = asked.partition(b"set-cookie: ")[2].partition(b";")[0].decode()
        for entered in (
            await client.get(login, Cookie=returned),
            await client.get(f"{login}&next=/mesh%3Flink=a~b"),
            await client.get(f"{login}&next=/plexd/mesh%3Flink=a~b"),
        ):
            assert entered.headers["Location"] == "/plexd/mesh?link=a~b"


def test_an_address_that_cannot_be_listened_on_is_a_plain_sentence() -> None:
    with pytest.raises(StartError, match=r"^cannot listen on \[fe80::1\]:0: Invalid argument; "):
        bind(Address("fe80::1", 0))


def test_an_address_knows_what_it_reaches() -> None:
    assert Address("::", 1).is_wildcard
    assert not Address("::1", 1).is_wildcard
    assert Address("::1", 1).is_loopback
