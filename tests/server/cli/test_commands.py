from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
import requests

import plexd
from plexd.api import Registration
from plexd.clock import SystemClock
from plexd_server.auth import read_operator_token
from plexd_server.cli.main import main
from plexd_server.cli.options import parse_host, parse_listen, parse_retention, parse_size
from plexd_server.errors import StartError
from plexd_server.registry import Applicant
from plexd_server.upkeep.data_dir import provide_registry
from plexd_server.web.guard import host_name
from plexd_server.web.listeners import Address, bind
from server.running import command, create_node, running, served
from support.privileges import bound_by_file_modes


def refused(*arguments: object, status: int = 1) -> str:
    """Run a command that fails and return its one line."""
    done = command(*arguments, check=False)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_version_is_printed_without_loading_the_server() -> None:
    code = (
        "import sys; from plexd_server.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'alembic', 'duckdb', 'litestar', 'sqlalchemy', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == f"plexd-server {plexd.__version__}\n[]\n"


def test_a_node_is_created_as_an_agents_identity(tmp_path: Path) -> None:
    identity = json.loads(command("node", "create", "n1", "--data-dir", tmp_path).stdout)

    assert tuple(identity) == Registration.__struct_fields__
    assert (identity["node_id"], identity["peers"]) == ("n1", [])


def test_an_identity_can_be_written_to_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"

    done = command("node", "create", "n1", "--mesh-ip", "10.0.0.1", "--data-dir", tmp_path / "d",
                   "--output", file)  # fmt: skip

    assert done.stdout == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["mesh_ip"] == "10.0.0.1"


def test_an_existing_file_is_not_overwritten_and_no_node_made(tmp_path: Path) -> None:
    file = tmp_path / "identity.json"
    file.write_text("precious")

    said = refused("node", "create", "n1", "--data-dir", tmp_path / "d", "--output", file)

    assert "File exists" in said
    assert file.read_text() == "precious"
    assert command("node", "list", "--data-dir", tmp_path / "d").stdout == ""


def test_a_refused_node_leaves_no_file(tmp_path: Path) -> None:
    create_node(tmp_path, "n1")
    file = tmp_path / "identity.json"

    said = refused("node", "create", "n1", "--data-dir", tmp_path, "--output", file)

    assert said == "plexd-server: node 'n1' exists already; choose another id\n"
    assert not file.exists()


def test_nodes_are_listed(tmp_path: Path) -> None:
    create_node(tmp_path, "n2")
    create_node(tmp_path, "n1")

    lines = command("node", "list", "--data-dir", tmp_path).stdout.splitlines()

    assert [line.split()[:3] for line in lines[1:]] == [
        ["n1", "-", "created"],
        ["n2", "-", "created"],
    ]


@pytest.mark.slow
def test_a_port_in_use_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with served(tmp_path / "a") as first:
        address = first.url.removeprefix("http://")
        said = refused("serve", "--listen", address, "--data-dir", tmp_path / "b")

    assert said == (
        f"plexd-server: cannot listen on {address}: address already in use; "
        "choose another with --listen\n"
    )


@pytest.mark.slow
def test_a_data_directory_in_use_is_reported_with_the_process(tmp_path: Path) -> None:
    with served(tmp_path / "a"):
        said = refused("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "a")

        assert f"in use by another process (pid {os.getpid()})" in said


@pytest.mark.parametrize("listen", ["8080", "host:port", "127.0.0.1:99999", "", "127.0.0.1:"])
def test_a_malformed_address_to_listen_on_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_listen(listen)


@pytest.mark.parametrize(
    ("listen", "host", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1", "127.0.0.1:80"),
        ("[::1]:80", "::1", "[::1]:80"),
        (":80", "0.0.0.0", "0.0.0.0:80"),
        ("plane.example:80", "plane.example", "plane.example:80"),
    ],
)
def test_an_address_to_listen_on_is_parsed_and_shown(listen: str, host: str, shown: str) -> None:
    address = parse_listen(listen)
    assert isinstance(address, Address)
    assert address.host == host
    assert str(address) == shown


@pytest.mark.slow
def test_wrong_usage_is_status_two(tmp_path: Path) -> None:
    said = refused("serve", "--listen", "8080", "--data-dir", tmp_path, status=2)

    assert "is not HOST:PORT" in said


@pytest.mark.parametrize("words", [[], ["token"], ["node"], ["secret"], ["ingest-token"]])
def test_without_a_command_there_is_help_and_status_two(words: list[str]) -> None:
    done = command(*words, check=False)

    assert done.returncode == 2
    assert done.stdout.startswith(f"usage: {' '.join(['plexd-server', *words])} [-h]")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["token", "crate"], 'there is no command "crate"; did you mean create? (see plexd-server'),
        (["node", "ls"], 'there is no command "ls"; did you mean list? (see plexd-server node'),
        (["node", "delete", "a"], 'there is no command "delete"; did you mean revoke? (see'),
        (["secret", "rm"], 'there is no command "rm"; did you mean delete? (see plexd-server'),
        (["ls"], 'there is no command "ls" (see plexd-server --help)'),
        (["srve"], 'there is no command "srve"; did you mean serve? (see plexd-server --help)'),
        (["node", "list", "--jsn"], "unrecognized arguments: --jsn; did you mean --json? (see"),
        (["token", "create", "--use=2"], "unrecognized arguments: --use; did you mean --uses? ("),
        (["--data-dir", "/x", "node", "list"], "the first word has to be a command, and options f"),
    ],
    ids=str,
)
def test_a_mistyped_command_or_option_is_answered_with_the_nearest(
    words: list[str], complaint: str
) -> None:
    assert refused(*words, status=2).startswith(f"plexd-server: {complaint}")


@pytest.mark.parametrize(
    "words", [["--port", "80"], ["--port=80"], ["--host", "::"], ["--bind", "[::]:80"], ["--port"]]
)
def test_where_to_listen_has_one_option(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["serve", *words])

    said = capfd.readouterr().err
    assert said.startswith("plexd-server: use --listen HOST:PORT to say where to listen, such as")


@pytest.mark.parametrize(
    "words",
    [
        ["node", "show", "berln"],
        ["node", "revoke", "berln"],
        ["node", "rotate", "berln"],
        ["node", "show", "Berlin"],
        ["secret", "set", "berln", "local"],
        ["secret", "list", "berln"],
        ["secret", "delete", "berln", "local"],
        ["ingest-token", "revoke", "berln"],
    ],
    ids=" ".join,
)
def test_a_mistyped_node_is_answered_with_the_nearest(words: list[str], tmp_path: Path) -> None:
    create_node(tmp_path, "berlin")

    said = refused(*words, "--data-dir", tmp_path)

    assert said.endswith(f"there is no node '{words[2]}'; did you mean berlin?\n")


@pytest.mark.parametrize(
    ("node", "name", "complaint"),
    [
        ("nobody", "local", "there is no node 'nobody'"),
        ("gone", "local", "node 'gone' is revoked"),
        ("berlin", "a/b", "'a/b' cannot name a secret"),
    ],
)
def test_a_secret_that_cannot_be_kept_is_not_asked_for(
    node: str, name: str, complaint: str, tmp_path: Path
) -> None:
    for known in ("berlin", "gone"):
        create_node(tmp_path, known)
    command("node", "revoke", "gone", "--data-dir", tmp_path)
    missing = ["--value-file", tmp_path / "no such file"]

    said = refused("secret", "set", node, name, *missing, "--data-dir", tmp_path)

    assert said.startswith(f"plexd-server: {complaint}")


@pytest.mark.parametrize("size", ["lots", "256", "-1MB", "1MB; DROP", "80%"])
def test_a_memory_limit_that_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match=r"--store-memory .* is no size"):
        parse_size(size)


@pytest.mark.parametrize("size", ["256MB", "1.5 GiB", "512mb"])
def test_a_memory_limit_is_passed_on_unchanged(size: str) -> None:
    assert parse_size(size) == size


@pytest.mark.parametrize("text", ["1s", "59m59s"])
def test_points_are_kept_for_an_hour_at_least(text: str) -> None:
    with pytest.raises(ValueError, match=r"--retention .* is too short, at least 1h: "):
        parse_retention(text)
    assert parse_retention("1h") == timedelta(hours=1)


@pytest.mark.parametrize("host", ["plane.example", "Plane", "192.0.2.1", "[2001:db8::1]", "a_b"])
def test_a_host_is_allowed_in_the_spellings_of_requests(host: str) -> None:
    assert host_name(parse_host(host)) == host.lower()


@pytest.mark.parametrize(
    "host", ["", "http://foo", "plane.example:8443", "2001:db8::1", "a b", "plane/", "[::1]:80"]
)
def test_a_host_that_no_request_can_name_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"--allowed-host .* without scheme and port"):
        parse_host(host)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match="this machine has no such address"):
        bind(Address("192.0.2.1", 0))


@pytest.mark.parametrize("host", ["a..b", "x" * 300, "not:an:address"])
def test_a_host_that_does_not_exist_is_refused(host: str) -> None:
    with pytest.raises(StartError, match="no such host"):
        bind(Address(host, 0))


def test_a_data_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match=r"cannot make the data directory .* --data-dir"):
        provide_registry(tmp_path / "file" / "data", SystemClock())


@pytest.mark.slow
def test_a_data_directory_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    line = [sys.executable, "-m", "plexd_server", "node", "list", "--data-dir", str(tmp_path)]

    done = subprocess.run(
        line, capture_output=True, text=True, check=False, preexec_fn=bound_by_file_modes
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not writable" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["token", "list"],
        ["token", "revoke", "t"],
        ["node", "list"],
        ["node", "show", "n1"],
        ["node", "revoke", "n1"],
        ["node", "rotate", "n1"],
        ["secret", "set", "n1", "s", "--value-file", __file__],
        ["secret", "list"],
        ["secret", "delete", "n1", "s"],
        ["ingest-token", "revoke", "n1"],
        ["prune"],
        ["backup", "copy"],
        ["simulate"],
    ],
    ids=" ".join,
)
def test_a_missing_data_directory_is_reported_and_none_is_made(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--data-dir", str(tmp_path / "none")]) == 1
    assert f"there is no data directory {tmp_path / 'none'}; " in capfd.readouterr().err

    assert main([*words, "--data-dir", str(tmp_path)]) == 1
    assert f"there is no registry in {tmp_path}; " in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["token", "create"], ["node", "create", "n1"], ["ingest-token", "create", "n1"]]
)
def test_commands_that_let_machines_in_work_before_the_first_start(
    words: list[str], tmp_path: Path
) -> None:
    first = command(*words, "--data-dir", tmp_path / "d")
    again = command("token", "create", "--data-dir", tmp_path / "d")

    assert f"{tmp_path / 'd'} is a new data directory; start the server with it" in first.stderr
    assert "new data directory" not in again.stderr


@pytest.mark.slow
def test_a_damaged_points_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "points.duckdb").write_bytes(b"rubbish" * 1000)

    said = refused("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path)

    assert "points.duckdb is damaged" in said
    assert "put a backup in its place" in said


@pytest.mark.parametrize("content", ["tooshort", "with a space and more", "ünïcödé" * 4])
def test_a_weak_operator_token_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(0o600)

    with pytest.raises(StartError, match="operator token") as refusal:
        read_operator_token(file)

    assert content not in str(refusal.value)


def test_a_missing_operator_token_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        read_operator_token(tmp_path / "none")


def test_an_operator_token_file_that_others_may_read_is_refused_with_a_remedy(
    tmp_path: Path,
) -> None:
    file = tmp_path / "token"
    file.write_text("x" * 32)
    file.chmod(0o640)

    with pytest.raises(StartError, match=f"run: chmod 600 {file}"):
        read_operator_token(file)


@pytest.mark.slow
def test_a_node_whose_identity_cannot_be_printed_is_not_registered(tmp_path: Path) -> None:
    done = into_full("node", "create", "n1", "--data-dir", tmp_path)

    assert done.returncode == 1
    assert done.stderr == (
        "plexd-server: cannot write to standard output: No space left on device\n"
    )
    assert command("node", "list", "--data-dir", tmp_path).stdout == ""


@pytest.mark.slow
def test_a_server_that_cannot_print_its_address_stops_with_a_reason(tmp_path: Path) -> None:
    done = into_full("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path)

    assert done.returncode == 1
    assert done.stderr == (
        "plexd-server: cannot write to standard output: No space left on device\n"
    )


def into_full(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output is a full disk."""
    line = [sys.executable, "-W", "error", "-m", "plexd_server", *map(str, arguments)]
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            line, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=30
        )


@pytest.mark.parametrize("text", ["garbage", "10.0.0.1/24", "300.1.1.1", "::1::"])
def test_a_malformed_mesh_address_is_status_two_and_makes_no_node(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "create", "n1", "--mesh-ip", text, "--data-dir", str(tmp_path)]) == 2

    assert capfd.readouterr().err == (
        f"plexd-server: --mesh-ip {text!r} is no IP address, such as 10.42.0.7\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["node", "create", "--help"]])
def test_help_that_cannot_be_printed_is_a_sentence(arguments: list[str]) -> None:
    line = [sys.executable, "-W", "error", "-m", "plexd_server", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "plexd-server: cannot write to standard output: No space left on device\n",
    )


@pytest.mark.slow
@pytest.mark.parametrize("network", ["0.0.0.0/0", "10.0.0.1/8", "plane.example"])
def test_proxies_are_named_by_networks_and_never_everybody(tmp_path: Path, network: str) -> None:
    said = refused("serve", "--trusted-proxy", network, "--data-dir", tmp_path, status=2)

    assert f"--trusted-proxy {network!r} is no network of proxies, such as 10.0.0.0/8" in said


@pytest.mark.slow
def test_a_server_believes_the_proxies_of_its_command_line(tmp_path: Path) -> None:
    networks = ("--trusted-proxy", "192.0.2.0/24", "--trusted-proxy", "127.0.0.1")
    with running(tmp_path / "d", *networks) as server, requests.Session() as session:
        session.trust_env = False
        for number in range(31):
            headers = {"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}
            session.get(f"{server.url}/login?token={number}", headers=headers, timeout=10)

    log = (tmp_path / "d.log").read_text()
    assert re.search(
        r'msg="too many wrong tokens" component=server address=198\.51\.100\.7$', log, re.MULTILINE
    )


def test_hostile_text_of_a_node_reaches_no_terminal_raw(tmp_path: Path) -> None:
    with closing(provide_registry(tmp_path, SystemClock())) as registry:
        token, _ = registry.tokens.create(uses=1, expires_in=timedelta(hours=1))
        about = {"os": "\x9b2J\u202e", "kernel": "\x1b[31m"}
        key = base64.b64encode(bytes(32)).decode()
        registry.enrol(Applicant(token, key, "a\u2066b\x85", about))

    for options in (["node", "show", "a-b"], ["node", "list"], ["node", "list", "--json"]):
        shown = command(*options, "--data-dir", tmp_path).stdout
        assert shown.replace("\n", "").isprintable(), options
    shown = command("node", "show", "a-b", "--json", "--data-dir", tmp_path).stdout
    assert json.loads(shown)["metadata"] == about
    assert shown.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "line",
    [
        ["secret", "set", "n1", "local", "hunter2-canary"],
        ["secret", "set", "n1", "local", "--value", "hunter2-canary"],
        ["token", "revoke", "plexd-join-hunter2-canary"],
        ["token", "plexd-join-hunter2-canary"],
        ["token", "hunter2-canary"],
        ["hunter2-canary"],
        ["ingest-token", "create", "n1", "--token=hunter2-canary"],
        ["serve", "--operator-token", "hunter2-canary"],
    ],
    ids=" ".join,
)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, line: list[str]) -> None:
    create_node(tmp_path)
    at = ["--data-dir", str(tmp_path)] if len(line) > 2 else []
    done = command(*line, *at, check=False)

    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stdout + done.stderr
