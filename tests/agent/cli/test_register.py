"""``plexd register`` against a scripted control plane, and what it does when that says no."""

from __future__ import annotations

import asyncio
import io
import json
import platform
import socket
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plexd.agent import interface
from plexd.agent.cli import register
from plexd.agent.cli.main import main
from plexd.agent.identity import Identity, load_identity, save_identity
from plexd.agent.interface import read_address
from plexd.api import Peer, Registration
from plexd_server.cli.main import main as server_main
from support.servers import RawServer, Reply, ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

    from support.servers import Connection
    from support.tls import Authority

    Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("_process_state", "no_default_file")

TOKEN = "plexd-join-canary"
NSK = "0123456789abcdef0123456789ABCDEF"
PUBLIC_KEY = "A" * 43 + "="
MADE = Registration("berlin", "10.99.0.1", NSK, "auth", [Peer("rome", PUBLIC_KEY, "10.99.0.2")])
OLD = Identity("old", "", NSK, "old")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_default_file: None) -> Path:
    assert no_default_file is None  # only its order matters: it empties the environment
    directory = tmp_path / "data"
    monkeypatch.setenv("PLEXD_DATA_DIR", str(directory))
    monkeypatch.setenv("PLEXD_TOKEN", TOKEN)
    return directory


async def registering(server: str, *options: str) -> int:
    line = ["register", "--server", server, "--public-key", PUBLIC_KEY, *options]
    return await asyncio.to_thread(main, line)


def welcoming() -> ScriptedServer:
    return ScriptedServer(Reply(body=msgspec.json.encode(MADE)))


async def test_the_machine_becomes_a_node_and_the_next_step_is_printed(
    data_dir: Path, capfd: Captured
) -> None:
    async with welcoming() as plane:
        assert await registering(plane.url, "--hostname", "berlin", "--mesh-ip", "10.99.0.1") == 0

    sent: Any = json.loads(plane.requests[0].body)
    assert (plane.requests[0].method, plane.requests[0].target) == ("POST", "/v1/register")
    assert (sent["token"], sent["public_key"], sent["hostname"]) == (TOKEN, PUBLIC_KEY, "berlin")
    assert sent["metadata"]["mesh_ip"] == "10.99.0.1"
    assert "Authorization" not in plane.requests[0].headers
    identity = load_identity(data_dir)
    assert (identity.node_id, identity.peers) == ("berlin", tuple(MADE.peers))
    assert stat.S_IMODE((data_dir / "identity.json").stat().st_mode) == 0o600
    said = capfd.readouterr()
    assert "this machine is node berlin, 10.99.0.1 in the mesh, with 1 peer" in said.out
    assert "next: plexd run" in said.out
    assert TOKEN not in said.out + said.err
    assert NSK not in said.out + said.err


async def test_the_interface_that_was_named_is_for_the_configuration(
    data_dir: Path, capfd: Captured
) -> None:
    async with welcoming() as plane:
        assert await registering(plane.url, "--interface", "wg7") == 0

    assert "next: say in /etc/plexd/config.yaml:\n" in (said := capfd.readouterr().out)
    assert "  wireguard: {interface: wg7}\n" in said
    assert data_dir.is_dir()  # noqa: ASYNC240 -- nothing else runs any more


async def test_an_identity_is_not_overwritten_and_no_token_used_up(
    data_dir: Path, capfd: Captured
) -> None:
    data_dir.mkdir()  # noqa: ASYNC240 -- nothing else runs yet
    save_identity(data_dir, OLD)
    async with welcoming() as plane:
        assert await registering(plane.url) == 1
        assert not plane.requests
        assert "is a node already" in capfd.readouterr().err
        assert load_identity(data_dir) == OLD

        assert await registering(plane.url, "--force") == 0
    assert load_identity(data_dir).node_id == "berlin"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not take this token"),
        (409, "cannot take this machine"),
        (404, "no control plane that registers nodes"),
        (500, "the control plane refused"),
    ],
)
async def test_a_refusal_is_one_sentence_without_the_token(
    data_dir: Path, capfd: Captured, status: int, words: str
) -> None:
    problem = msgspec.json.encode({"detail": f"because of {TOKEN}"})
    headers = {"Content-Type": "application/problem+json"}
    async with ScriptedServer(Reply(status=status, body=problem, headers=headers)) as plane:
        assert await registering(plane.url) == 1

    said = capfd.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert TOKEN not in said
    assert not (data_dir / "identity.json").exists()


async def test_an_answer_that_makes_no_sense_leaves_no_identity(
    data_dir: Path, capfd: Captured
) -> None:
    for body in (b"<html>", b"{}", msgspec.json.encode(MADE).replace(b"berlin", b"../..")):
        async with ScriptedServer(Reply(body=body)) as plane:
            assert await registering(plane.url) == 1
    assert not (data_dir / "identity.json").exists()
    assert capfd.readouterr().err.count("\n") == 3


async def test_a_missing_control_plane_is_reported(capfd: Captured) -> None:
    assert await registering("http://127.0.0.1:1") == 1

    assert capfd.readouterr().err == (
        "plexd: cannot reach the control plane at http://127.0.0.1:1: Connection refused\n"
    )


async def test_a_token_that_may_have_arrived_is_reported(capfd: Captured) -> None:
    async def hang_up(connection: Connection) -> None:
        await connection.request()

    async with RawServer(hang_up) as plane:
        assert await registering(plane.url) == 1

    assert "; if it had the token already, a one-time token is used up" in capfd.readouterr().err


async def test_a_wait_that_is_asked_for_is_reported(capfd: Captured) -> None:
    headers = {"Retry-After": "7"}
    async with ScriptedServer(Reply(status=429, body=b"too many", headers=headers)) as plane:
        assert await registering(plane.url) == 1

    said = "plexd: the control plane refused: too many; try again in 7 s\n"
    assert capfd.readouterr().err == said


async def test_an_authority_of_the_environment_belongs_into_the_file(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    file = tmp_path / "my ca.pem"
    file.write_bytes(authority.ca_file.read_bytes())
    reply = Reply(body=msgspec.json.encode(MADE))
    async with ScriptedServer(reply, tls=authority.server()) as plane:
        assert await registering(plane.url) == 1
        assert "api.ca_file or PLEXD_API_CA_FILE" in capfd.readouterr().err

        monkeypatch.setenv("PLEXD_API_CA_FILE", str(file))
        assert await registering(plane.url) == 0
        assert f'  api: {{base_url: {plane.url}, ca_file: "{file}"}}\n' in capfd.readouterr().out


async def test_what_the_file_says_already_is_not_asked_for(tmp_path: Path, capfd: Captured) -> None:
    file = tmp_path / "config.yaml"
    async with welcoming() as plane:
        file.write_text(f"api: {{base_url: {plane.url}}}\n")
        assert await registering(plane.url, "--config", str(file)) == 0
        assert "base_url" not in capfd.readouterr().out

        file.write_text("api: {base_url: https://elsewhere.example}\n")
        assert await registering(plane.url, "--config", str(file), "--force") == 0
        assert f"  api: {{base_url: {plane.url}}}\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("--public-key", "abc", "expected a WireGuard public key"),
        ("--public-key", "", "expected a WireGuard public key"),
        ("--mesh-ip", "10.99.0.7/24", "leave out the prefix length"),
        ("--mesh-ip", "host", "expected an IP address"),
    ],
)
async def test_a_wrong_option_is_reported_before_anything_is_sent(
    option: str, text: str, reason: str, capfd: Captured
) -> None:
    async with welcoming() as plane:
        assert await registering(plane.url, option, text) == 2
        assert not plane.requests

    said = capfd.readouterr().err
    assert said.startswith(f"plexd: {option}: ")
    assert reason in said


@pytest.mark.parametrize("server", ["", "plane.example", "ftp://plane.example"])
async def test_an_address_that_is_none_is_status_two(server: str) -> None:
    assert await registering(server) == 2


@pytest.mark.parametrize(
    "server", ["192.0.2.254:8443", "plane.example", "//plane.example/x", "[2001:db8::1]:8443"]
)
async def test_an_address_without_a_scheme_is_asked_for_with_one(
    server: str, capfd: Captured
) -> None:
    assert await registering(server) == 2

    said = capfd.readouterr().err
    assert said.endswith(f"; did you mean https://{server.removeprefix('//')}?\n")


@pytest.mark.parametrize("server", ["http:/x", "a b", "user@plane.example", "plane.example:x", "?"])
async def test_nothing_is_guessed_where_more_than_the_scheme_is_missing(
    server: str, capfd: Captured
) -> None:
    assert await registering(server) == 2
    assert "did you mean" not in capfd.readouterr().err


PASTED = "plexd-join-dQw4w9WgXcQ_canary-of-43-characters-AAAA"


@pytest.mark.parametrize(
    "options",
    [
        ["--token", PASTED],
        [f"--token={PASTED}"],
        ["--token-file", "/dev/null", "--token", PASTED],
        [PASTED],
        ["--token-file", PASTED],
        ["--bootstrap-token", PASTED],
        [f"--auth={PASTED}"],
        ["-t", PASTED],
        [f"-t{PASTED}"],
        ["--server", PASTED],
        ["--server", f"https://{PASTED}@plane.example"],
        ["--interface", PASTED],
        ["--mesh-ip", PASTED],
        ["--public-key", PASTED],
        ["--config", PASTED],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("program", ["register", "run", "token"])
def test_a_token_on_the_command_line_is_never_repeated(
    program: str, options: list[str], capfd: Captured
) -> None:
    if program == "token":
        assert server_main_status(["token", "create", *options]) != 0
    else:
        assert main([program, *options]) != 0

    said = capfd.readouterr()
    assert said.err.count("\n") == 1
    assert PASTED.removeprefix("plexd-join-") not in said.out + said.err


def server_main_status(line: list[str]) -> int:
    try:
        return server_main(line)
    except SystemExit as wrong_usage:
        return int(wrong_usage.code or 0)


@pytest.mark.parametrize(
    "options", [["--token"], ["--token", "x"], ["--token=x"], ["--force", "--token", "x"]]
)
def test_a_token_on_the_command_line_is_answered_with_where_it_belongs(
    options: list[str], capfd: Captured
) -> None:
    assert main(["register", *options]) == 2

    said = capfd.readouterr().err
    assert said.startswith("plexd: a token is not accepted on the command line")
    assert all(way in said for way in ("PLEXD_TOKEN=", "--token-file FILE", "standard input"))


@pytest.mark.parametrize("secret", ["hunter2", "-abcDEF123_secret", "--x=hunter2", "--hunter2=a"])
def test_no_value_of_an_unknown_option_is_repeated(secret: str, capfd: Captured) -> None:
    assert main(["register", "--auth-token", secret]) == 2

    said = capfd.readouterr().err
    assert "unrecognized arguments: --auth-token" in said
    assert "hunter2" not in said
    assert "secret" not in said.removeprefix("plexd: ")


@pytest.mark.parametrize("secret", ["hunter2", "aBcDeF", "a" * 43, "hunter2 x"])
def test_a_value_that_was_taken_for_a_command_is_not_repeated(secret: str, capfd: Captured) -> None:
    assert main(["--auth-token", secret, "register"]) == 2
    assert secret not in capfd.readouterr().err


async def test_http_to_a_port_of_https_is_answered_with_the_scheme(
    authority: Authority, capfd: Captured
) -> None:
    async with ScriptedServer(tls=authority.server()) as plane:
        assert await registering(plane.url.replace("https:", "http:")) == 1
    assert "does it speak HTTPS? Then the URL has to begin with https://" in capfd.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
        b"<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />",
        b"Bad Request\r\nThis combination of host and port requires TLS.\r\n",
        b'{"status":400,"detail":"this port speaks HTTPS; begin the address with https://"}',
    ],
)
async def test_a_server_that_asks_for_https_is_understood(body: bytes, capfd: Captured) -> None:
    async with ScriptedServer(Reply(status=400, body=body)) as plane:
        assert await registering(plane.url) == 1
    assert "it speaks HTTPS: the URL has to begin with https://" in capfd.readouterr().err


async def test_https_to_a_port_of_http_is_answered_with_the_port(capfd: Captured) -> None:
    async with welcoming() as plane:
        assert await registering(plane.url.replace("http:", "https:")) == 1
    assert "does not speak HTTPS: check the port of the URL" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["not_yet_valid", "expired"])
async def test_a_certificate_of_another_time_asks_for_this_machines_clock(
    authority: Authority, capfd: Captured, kind: str
) -> None:
    async with ScriptedServer(tls=getattr(authority, kind)()) as plane:
        assert await registering(plane.url, "--config", config(authority)) == 1

    said = capfd.readouterr().err
    year = datetime.now(UTC).year
    assert f"; this machine's clock says {year}-" in said
    assert ": is it right?" in said
    assert "api.ca_file" not in said


async def test_a_certificate_of_another_name_asks_for_the_url(
    authority: Authority, capfd: Captured
) -> None:
    async with ScriptedServer(tls=authority.wrong_name()) as plane:
        assert await registering(plane.url, "--config", config(authority)) == 1

    said = capfd.readouterr().err
    assert said.endswith(
        "; the URL needs a name or address that is in the certificate: elsewhere.example\n"
    )
    assert "api.ca_file" not in said


def config(authority: Authority) -> str:
    file = authority.ca_file.with_suffix(".yaml")
    file.write_text(f"api: {{ca_file: {authority.ca_file}}}\n")
    return str(file)


@pytest.mark.parametrize(
    ("node_id", "is_said"),
    [("b", False), ("b-1", False), ("b-2", True), ("b-10", True), ("c", False)],
)
async def test_a_machine_that_got_a_number_after_its_name_learns_the_way_back(
    node_id: str, is_said: bool, capfd: Captured
) -> None:
    made = msgspec.structs.replace(MADE, node_id=node_id)
    async with ScriptedServer(Reply(body=msgspec.json.encode(made))) as plane:
        assert await registering(plane.url, "--hostname", "b") == 0

    said = capfd.readouterr().err
    assert said.endswith("plexd-server token create --node b\n") == is_said


async def test_the_token_may_come_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    assert register._token(str(file), {}) == "from-the-file"
    with (tmp_path / "stdin").open("w+b") as stdin:
        stdin.write(b"from-standard-input\n")
        stdin.seek(0)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stdin))
        monkeypatch.setattr(register, "_STDIN", stdin.fileno())
        assert register._token(None, {}) == "from-standard-input"


@pytest.mark.parametrize("given", ["\ufeff{}\r\n", "{}\n", " {} \n", "\ufeff{}"])
def test_a_token_is_read_with_what_editors_and_shells_leave_around_it(
    tmp_path: Path, given: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(given.format("the-token").encode())
    assert register._token(str(file), {}) == "the-token"
    assert register._token(None, {"PLEXD_TOKEN": given.format("the-token")}) == "the-token"


def test_a_token_in_an_encoding_of_windows_is_named_as_such(
    tmp_path: Path, capfd: Captured
) -> None:
    file = tmp_path / "token"
    file.write_bytes(TOKEN.encode("utf-16"))
    line = ["register", "--server", "http://127.0.0.1:1", "--public-key", PUBLIC_KEY]
    assert main([*line, "--token-file", str(file)]) == 1
    assert "it is UTF-16 text; save it as UTF-8" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "two words", "ünïcödé"])
async def test_text_that_is_no_token_is_reported_before_anything_is_sent(
    tmp_path: Path, capfd: Captured, text: str
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    async with welcoming() as plane:
        assert await registering(plane.url, "--token-file", str(file)) == 1
        assert not plane.requests
    assert "there is no bootstrap token" in capfd.readouterr().err


def test_a_missing_interface_is_reported_with_a_way_out(capfd: Captured) -> None:
    line = ["register", "--server", "http://127.0.0.1:1", "--interface", "none0"]
    assert main(line) == 1

    said = capfd.readouterr().err
    assert 'there is no interface "none0"' in said
    assert "--public-key" in said


@pytest.mark.parametrize(("kind", "tool"), [("wireguard", "wg"), ("amneziawg", "awg")])
def test_the_key_of_an_interface_in_userspace_is_asked_for_with_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured, kind: str, tool: str
) -> None:
    directories = [tmp_path / name for name in ("wireguard", "amneziawg")]
    for directory in directories:
        directory.mkdir()
    monkeypatch.setattr(interface, "_SOCKETS", directories)
    line = ["register", "--server", "http://127.0.0.1:1", "--interface", "lo"]
    assert main(line) == 1
    assert "cannot read the public key of" in capfd.readouterr().err

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / kind / "lo.sock"))
        assert main(line) == 1
    assert f'in userspace: --public-key "$({tool} show lo public-key)"' in capfd.readouterr().err


def test_the_address_of_an_interface_is_found() -> None:
    assert read_address("lo") == "127.0.0.1"
    assert not read_address("none0")


async def test_peers_that_cannot_be_used_are_named_and_do_not_cost_the_registration(
    data_dir: Path, capfd: Captured
) -> None:
    """A one-time token is used up by then."""
    made = msgspec.to_builtins(MADE)
    evil = {"id": "evil", "public_key": PUBLIC_KEY[1:] + "=", "mesh_ip": "169.254.169.254"}
    made["peers"] = [evil, *made["peers"]]
    async with ScriptedServer(Reply(body=msgspec.json.encode(made))) as plane:
        assert await registering(plane.url) == 0
    assert [peer.id for peer in load_identity(data_dir).peers] == ["rome"]
    said = capfd.readouterr()
    assert "with 1 peer\n" in said.out
    assert "warning: 1 of the peers cannot be used: peer 'evil': mesh_ip" in said.err


async def test_entries_that_are_no_peers_are_named_as_well(data_dir: Path, capfd: Captured) -> None:
    made = msgspec.to_builtins(MADE)
    made["peers"] = [5, *made["peers"]]
    async with ScriptedServer(Reply(body=msgspec.json.encode(made))) as plane:
        assert await registering(plane.url) == 0
    assert [peer.id for peer in load_identity(data_dir).peers] == ["rome"]
    left_out = "plexd: warning: peers left out: entry 1: Expected `object`, got `int`\n"
    assert left_out in capfd.readouterr().err


async def test_a_line_break_behind_the_nodes_token_does_not_cost_the_registration(
    data_dir: Path,
) -> None:
    secrets = {"auth_token": "the-token\r\n", "node_secret_key": f"{NSK}\n"}
    made = msgspec.to_builtins(MADE) | secrets
    async with ScriptedServer(Reply(body=msgspec.json.encode(made))) as plane:
        assert await registering(plane.url) == 0
    assert load_identity(data_dir).auth_token == "the-token"


async def test_a_machine_whose_system_has_no_readable_name_is_registered_without_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = data_dir.with_name("os-release")
    release.write_bytes(b'PRETTY_NAME="\xff"\n')
    monkeypatch.setattr(platform, "_os_release_cache", None)
    monkeypatch.setattr(platform, "_os_release_candidates", (str(release),))
    async with welcoming() as plane:
        assert await registering(plane.url) == 0
        assert "os" not in msgspec.json.decode(plane.requests[0].body)["metadata"]


@pytest.mark.parametrize("name", ["\udcff", "a\x9b31m", "\u202e"])
def test_a_name_that_no_terminal_should_see_is_refused_before_anything_is_sent(
    capfd: Captured, name: str
) -> None:
    line = ["register", "--server", "http://127.0.0.1:1", "--hostname", name]
    assert main(line) == 2
    assert capfd.readouterr().err == "plexd: --hostname: expected printable text\n"


async def test_a_registration_whose_peers_are_null_is_one_without_peers(data_dir: Path) -> None:
    made = msgspec.to_builtins(MADE) | {"peers": None}
    async with ScriptedServer(Reply(body=msgspec.json.encode(made))) as plane:
        assert await registering(plane.url) == 0
    assert load_identity(data_dir).peers == ()
