"""Starting, stopping and dying, with real processes and real sockets."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from plexd.api import LatencyResult, MetricBatch
from server.running import Client, connected, create_node, running, served
from support.points import EXAMPLE, LATENCY

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

CLOSED = "import os; os.closerange(0, 3); from plexd_server.cli.main import main; os._exit(main())"
METRICS = "/v1/nodes/n1/metrics"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_zero_and_nothing_more_on_stdout(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path / "d") as server:
        assert server.login == f"{server.url}/login?token={server.operator_token}"
        server.process.send_signal(number)
        rest, _ = server.process.communicate(timeout=20)

    assert (server.process.returncode, rest) == (0, "")


def test_a_signal_during_the_start_ends_it_with_status_zero(tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "plexd_server", "serve"]
    line += ["--listen", "127.0.0.1:0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while b"litestar" not in (seen := process.stderr.readline()):
            assert seen, "it ended before it loaded the server"
        process.terminate()
        process.communicate(timeout=20)

    assert process.returncode == 0


@pytest.mark.slow
async def test_acknowledged_points_survive_a_kill(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    with running(tmp_path / "d") as server:
        answer = await Client(session, server.url, token).post(METRICS, EXAMPLE.to_json())
        assert {file.stat().st_mode & 0o077 for file in (tmp_path / "d").iterdir()} == {0}
        server.process.kill()
        assert answer.json["accepted"] == 3
        server.process.wait(10)

    with served(tmp_path / "d") as again:
        latest = await Client(session, again.url, token).get("/v1/nodes/n1/latest")

    assert len(latest.json["points"]) == 3


@pytest.mark.slow
async def test_a_request_in_flight_is_finished_when_it_stops(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    body = EXAMPLE.to_json()
    head = (
        f"POST {METRICS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    with running(tmp_path / "d") as server, connected(server.url) as connection:
        connection.sendall(head.encode())
        assert b"100 Continue" in connection.recv(1000)  # the server is reading the body
        server.process.terminate()
        await _refuses_new_connections(server.url)
        connection.sendall(body)
        answer = connection.recv(10_000)
        assert server.process.wait(20) == 0

    assert answer.startswith(b"HTTP/1.1 200")
    with served(tmp_path / "d") as again:
        latest = await Client(session, again.url, token).get("/v1/nodes/n1/latest")
    assert len(latest.json["points"]) == 3


async def _refuses_new_connections(url: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                connected(url).close()
            except ConnectionRefusedError:
                return
            await asyncio.sleep(0.01)


@pytest.mark.slow
def test_idle_connections_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with (
        running(tmp_path / "d") as server,
        connected(server.url) as idle,
        connected(server.url) as used,
    ):
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(1000).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
        assert idle.recv(1) == b""


async def test_a_node_made_while_it_runs_may_report_at_once(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    with served(tmp_path / "d") as server:
        token = (await asyncio.to_thread(create_node, tmp_path / "d"))["auth_token"]
        answer = await Client(session, server.url, token).post(METRICS, EXAMPLE.to_json())

    assert answer.status == 200


async def test_an_operator_token_of_ones_own_opens_and_is_not_shown(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    file = tmp_path / "token"
    token = "0123456789abcdef0123456789abcdef"
    file.write_text(f"{token}\n")
    file.chmod(0o600)
    with served(tmp_path / "d", operator_token_file=file) as server:
        operator = Client(session, server.url, token)
        assert (await operator.get("/v1/nodes")).json["nodes"] == []
        assert server.login == f"{server.url}/login"  # a token from a file is not repeated


async def test_an_allowed_host_is_answered(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    with served(tmp_path / "d", allowed_hosts=("plane.example",)) as server:
        client = Client(session, server.url)
        assert (await client.get("/v1/openapi.json", Host="Plane.Example.:443")).status == 200
        assert (await client.get("/v1/openapi.json", Host="plane.example.evil")).status == 421


@pytest.mark.slow
def test_logs_are_one_json_object_a_line_and_hold_no_token(tmp_path: Path) -> None:
    with running(tmp_path / "d", "--log-format", "json") as server:
        server.stop()

    text = (tmp_path / "d.log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line["msg"] for line in lines]
    assert {(line["time"][-1], line["component"]) for line in lines} == {("Z", "server")}
    assert events == ["started", "stopping", "stopped"]
    assert server.operator_token not in text
    assert all(
        server.operator_token.encode() not in file.read_bytes()
        for file in (tmp_path / "d").rglob("*")
        if file.is_file()
    )


@pytest.mark.slow
async def test_a_full_disk_is_logged_and_not_described_to_nodes(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    token = create_node(tmp_path / "d")["auth_token"]
    noise = random.Random(1)
    numbers = [noise.randrange(10**9) for _ in range(5000)]
    many = MetricBatch(
        [replace(LATENCY, data=LatencyResult(LATENCY.peer_id, n)) for n in numbers]
    ).to_json()
    with running(tmp_path / "d") as server:
        node, pid = Client(session, server.url, token), server.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16 * 1024, unlimited[1]))
        refusals = [await node.post(METRICS, many) for _ in range(3)]
        health = await node.get("/healthz")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        again = await node.post(METRICS, many)
        async with asyncio.timeout(10):
            while (await node.get("/healthz")).status != 200:
                pass

    assert {(answer.status, answer.headers["Retry-After"]) for answer in refusals} == {(503, "2")}
    assert str(tmp_path).encode() not in refusals[0].body + health.body
    assert (health.status, again.status) == (503, 200)
    log = (tmp_path / "d.log").read_text()
    assert log.count('msg="the store fails"') == 1
    assert f"File too large: '{tmp_path / 'd' / 'journal'}'" in log
    assert 'msg="the store works again"' in log


@pytest.mark.slow
def test_closed_standard_descriptors_are_not_used_for_files(tmp_path: Path) -> None:
    line = [sys.executable, "-c", CLOSED, "serve", "--listen", "127.0.0.1:0"]
    line += ["--data-dir", str(tmp_path)]

    done = subprocess.run(line, check=False, timeout=20)

    assert done.returncode == 1  # it cannot say where it listens
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"plexd-server:" in file.read_bytes() for file in files)


def test_garbled_http_is_refused_and_the_server_lives_on(tmp_path: Path) -> None:
    corpus = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /login HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 600_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
    ]
    with served(tmp_path / "d") as server:
        for request in corpus:
            with connected(server.url) as connection:
                answer = b""
                # The server may close while we are still sending.
                with suppress(OSError):
                    connection.sendall(request)
                    connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    answer = connection.recv(1000)
                status = answer.partition(b" ")[2][:3]
                assert status in {b"400", b"405", b"421", b"431", b""}, request[:80]
        with connected(server.url) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
