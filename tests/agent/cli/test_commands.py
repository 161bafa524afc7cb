"""The commands inside this process, with scripted parts where a real one would measure."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd import console
from plexd.agent import app, one_cycle
from plexd.agent.cli import demo
from plexd.agent.cli.main import main
from plexd.agent.config import settings as config
from plexd.agent.identity import Identity, save_identity
from plexd.api import LatencyResult, MetricPoint, Peer
from plexd.console import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[str], Path]
    Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("_process_state", "no_default_file")

KEY = "0123456789abcdef0123456789ABCDEF"
POINT = MetricPoint(
    timestamp=datetime(2026, 2, 12, 10, 30, tzinfo=UTC),
    group="latency",
    peer_id="peer-abc",
    data=LatencyResult("peer-abc", 15_000_000),
)


@pytest.fixture
def collects(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def script(points: list[MetricPoint], *failures: tuple[str, str]) -> None:
        async def collect_once(*_: object) -> one_cycle.CollectedCycle:
            return one_cycle.CollectedCycle(points, list(failures), {"latency": 0.02}, {})

        monkeypatch.setattr(one_cycle, "collect_once", collect_once)

    return script


@pytest.fixture
def runnable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_default_file: None) -> Path:
    """The data directory of a node that has everything it needs to run."""
    assert no_default_file is None  # only its order matters: it empties the environment
    directory = tmp_path / "data"
    directory.mkdir()
    save_identity(directory, Identity("node-a", "10.99.0.1", KEY, "token"))
    monkeypatch.setenv("PLEXD_DATA_DIR", str(directory))
    monkeypatch.setenv("PLEXD_API_BASE_URL", "https://plane.example")
    return directory


def test_collect_prints_a_table(collects: Callable[..., None], capfd: Captured) -> None:
    collects([POINT], ("tunnel", "metrics: tunnel: no such interface"))
    assert main(["collect"]) == 0
    out, err = capfd.readouterr()
    assert "  peer-abc  15.00 ms\n" in out
    assert "not collected: no such interface" in out
    assert err == ""


def test_collect_json_prints_exactly_the_batch(
    collects: Callable[..., None], capfd: Captured
) -> None:
    collects([POINT], ("tunnel", "metrics: tunnel: no such interface"))
    assert main(["collect", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == [json.loads(msgspec.json.encode(POINT))]
    assert out.endswith("]\n")
    assert err == "plexd: tunnel: no such interface\n"


def test_collect_fails_only_when_nothing_was_collected(
    collects: Callable[..., None], capfd: Captured
) -> None:
    collects([], ("tunnel", "no such interface"))
    assert main(["collect"]) == 1
    assert capfd.readouterr().err == "plexd: nothing could be collected\n"


def test_a_token_file_that_cannot_be_used_costs_a_collection_no_peers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Captured
) -> None:
    known = Identity("node-a", "", "0123456789abcdef" * 2, "t", (Peer("b", "k", "10.0.0.2"),))
    save_identity(tmp_path, known)
    asked: list[Identity | None] = []

    async def collect_once(
        _: config.Settings, identity: Identity | None
    ) -> one_cycle.CollectedCycle:
        asked.append(identity)
        return one_cycle.CollectedCycle([POINT], [], {}, {})

    monkeypatch.setattr(one_cycle, "collect_once", collect_once)
    monkeypatch.setenv("PLEXD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PLEXD_API_AUTH_TOKEN_FILE", f"{tmp_path}/none")
    assert main(["collect", "--json"]) == 0
    assert asked == [known]
    assert "warning: PLEXD_API_AUTH_TOKEN_FILE: api.auth_token_file: " in capfd.readouterr().err


def test_an_interrupted_collect_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    async def collect_once(*_: object) -> one_cycle.CollectedCycle:
        raise KeyboardInterrupt

    monkeypatch.setattr(one_cycle, "collect_once", collect_once)
    assert main(["collect"]) == 130
    assert capfd.readouterr() == ("", "")


def test_an_unexpected_error_is_one_line_and_a_traceback_only_for_debugging(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    async def collect_once(*_: object) -> one_cycle.CollectedCycle:
        raise ExceptionGroup("several", [ExceptionGroup("more", [KeyError("x\ny")])])

    monkeypatch.setattr(one_cycle, "collect_once", collect_once)
    line = "plexd: unexpected error: KeyError: 'x\\ny' (PLEXD_LOG_LEVEL=debug shows where)\n"
    assert main(["collect"]) == 1
    assert capfd.readouterr().err == line
    monkeypatch.setenv("PLEXD_LOG_LEVEL", "debug")
    assert main(["collect"]) == 1
    err = capfd.readouterr().err
    assert err.endswith(line)
    assert "traceback=" in err


def test_config_check_says_ok(config_file: Write, capfd: Captured) -> None:
    path = config_file("api: {base_url: https://plane.example}")
    assert main(["config", "check", "--config", str(path)]) == 0
    assert capfd.readouterr() == (f"{path}: ok\n", "")


def test_config_check_adds_its_warnings(config_file: Write, capfd: Captured) -> None:
    path = config_file("api: {base_url: http://plane.example}")
    assert main(["--config", str(path), "config", "check"]) == 0
    assert capfd.readouterr() == (
        f"{path}: ok\n",
        (
            "plexd: warning: api.base_url: http:// sends the node's bearer token unencrypted; "
            "use https://\n"
        ),
    )


def test_config_check_warns_of_what_is_not_on_this_machine(
    config_file: Write, capfd: Captured
) -> None:
    text = "api: {base_url: https://plane.example}\nsystem: {net_iface: plexd-none}"
    path = config_file(text)
    assert main(["config", "check", "--config", str(path)]) == 0
    warning = 'system.net_iface: there is no interface "plexd-none"'
    assert capfd.readouterr() == (f"{path}: ok\n", f"plexd: warning: {warning}\n")


def test_config_check_of_a_wrong_file_is_one_line_and_status_2(
    config_file: Write, capfd: Captured
) -> None:
    path = config_file("metrics:\n  batch_size: 0\n")
    assert main(["config", "check", "--config", str(path)]) == 2
    complaint = "metrics.batch_size: must be > 0"
    assert capfd.readouterr() == ("", f"plexd: {path}:2: {complaint}\n")


def test_config_check_works_without_a_file_as_run_does(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_API_BASE_URL", "https://plane.example")
    assert main(["config", "check"]) == 0
    answer = f"no {config.DEFAULT_PATH}: environment and defaults are ok\n"
    assert capfd.readouterr() == (answer, "")


def test_config_check_without_a_file_still_refuses_a_wrong_variable(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_METRICS_BATCH_SIZE", "many")
    assert main(["config", "check"]) == 2
    complaint = 'PLEXD_METRICS_BATCH_SIZE: expected a whole number, found "many"'
    assert capfd.readouterr() == ("", f"plexd: {complaint}\n")


def test_config_show_works_without_a_file(capfd: Captured) -> None:
    assert main(["config", "show"]) == 0
    assert "collect_interval: 15s\n" in capfd.readouterr().out


def test_the_default_file_is_read_where_it_is_there(capfd: Captured) -> None:
    config.DEFAULT_PATH.parent.mkdir()
    config.DEFAULT_PATH.write_text("metrics: {batch_size: 7}")
    assert main(["config", "show"]) == 0
    assert f"  batch_size: 7  # {config.DEFAULT_PATH}:1\n" in capfd.readouterr().out


def test_a_default_file_that_cannot_be_read_is_not_passed_over(capfd: Captured) -> None:
    config.DEFAULT_PATH.parent.mkdir()
    config.DEFAULT_PATH.symlink_to(config.DEFAULT_PATH)
    assert main(["config", "show"]) == 2
    complaint = "cannot be read: Too many levels of symbolic links"
    assert capfd.readouterr().err == f"plexd: {config.DEFAULT_PATH}: {complaint}\n"


@pytest.mark.parametrize("argv", [["collect"], ["config", "check"], ["config", "show"], ["run"]])
def test_a_file_that_was_named_must_be_there(
    argv: list[str], tmp_path: Path, capfd: Captured
) -> None:
    path = tmp_path / "none.yaml"
    assert main([*argv, "--config", str(path)]) == 2
    complaint = "no such file; name another one with --config"
    assert capfd.readouterr().err == f"plexd: {path}: {complaint}\n"


def test_the_last_file_that_was_named_wins(config_file: Write, capfd: Captured) -> None:
    path = config_file("metrics: {batch_size: 7}")
    assert main(["--config", "/none", "config", "show", "--config", str(path)]) == 0
    assert "batch_size: 7" in capfd.readouterr().out


def test_run_runs_until_its_work_ends(
    runnable: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    ran: list[str] = []

    async def run(
        settings: config.Settings, identity: Identity, read_token: Callable[[], str]
    ) -> None:
        assert settings.data_dir == runnable
        assert read_token() == identity.auth_token
        ran.append(identity.node_id)

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setenv("PLEXD_PORT", "1")
    assert main(["run"]) == 0
    assert ran == ["node-a"]
    assert 'level=warning msg="PLEXD_PORT: unknown variable, ignored' in capfd.readouterr().err


@pytest.mark.usefixtures("runnable")
def test_run_interrupted_while_it_starts_ends_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", run)
    assert main(["run"]) == 0


@pytest.mark.usefixtures("runnable")
def test_run_without_a_control_plane_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.delenv("PLEXD_API_BASE_URL")
    assert main(["run"]) == 2
    assert capfd.readouterr().err.startswith("plexd: api.base_url: is not set; ")


def test_run_without_an_identity_says_so(runnable: Path, capfd: Captured) -> None:
    (runnable / "identity.json").unlink()
    assert main(["run"]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"plexd: no identity at {runnable}/identity.json: run `plexd register`")


def test_run_without_its_data_directory_says_so(
    runnable: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_DATA_DIR", f"{runnable}/none")
    assert main(["run"]) == 1
    complaint = "is no directory; create it for the user plexd runs as, mode 0700"
    assert capfd.readouterr().err == f"plexd: data_dir {runnable}/none {complaint}\n"


def test_run_in_a_data_directory_it_cannot_write_to_says_so(
    runnable: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert main(["run"]) == 1
    assert capfd.readouterr().err == (
        f"plexd: data_dir {runnable} cannot be written to; give it to the user plexd runs as, "
        "or check whether it is mounted read-only\n"
    )


@pytest.mark.usefixtures("runnable")
def test_run_needs_a_data_directory(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    monkeypatch.setenv("PLEXD_DATA_DIR", "")
    assert main(["run"]) == 2
    complaint = "data_dir: is empty, so say where the node's identity is: plexd run --identity FILE"
    assert capfd.readouterr().err == f"plexd: PLEXD_DATA_DIR: {complaint}\n"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["bogus"], 'there is no command "bogus" (see plexd --help)'),
        (["colect"], 'there is no command "colect"; did you mean collect? (see plexd --help)'),
        (["config", "chek"], 'there is no command "chek"; did you mean check? (see plexd config'),
        (["collect", "--bogus"], "unrecognized arguments: --bogus (see plexd collect --help)"),
        (["collect", "--js"], "unrecognized arguments: --js; did you mean --json? (see plexd c"),
        (["--jsn", "--confg=x"], "unrecognized arguments: --jsn --confg (see plexd --help)"),
        (["--confg=x"], "unrecognized arguments: --confg; did you mean --config? (see plexd --h"),
        (["run", "--config"], "argument --config: expected one argument (see plexd run --help)"),
        (["demo", "--for", "30"], "argument --for: expected a duration such as 30s; write 30s"),
        (["demo", "--for", "x"], "argument --for: expected a duration such as 30s (see plexd"),
        (["demo", "--for", "0s"], "argument --for: must be longer than nothing (see plexd"),
        (["demo", "--listen", "8080"], "argument --listen: expected HOST:PORT, such as"),
        (["demo", "--listen", "a:65536"], "argument --listen: expected HOST:PORT, such as"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    argv: list[str], complaint: str, capfd: Captured
) -> None:
    assert main(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"plexd: {complaint}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["config"]])
def test_without_a_command_there_is_help_and_status_2(argv: list[str], capfd: Captured) -> None:
    assert main(argv) == 2
    out, err = capfd.readouterr()
    assert out.startswith(f"usage: {' '.join(['plexd', *argv])} [-h]")
    assert err == ""


@pytest.mark.parametrize(
    "argv",
    [[], ["run"], ["collect"], ["config"], ["config", "check"], ["config", "show"], ["demo"]],
)
def test_every_command_has_help_that_fits_a_terminal(
    argv: list[str], capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*argv, "--help"]) == 0
    out, _ = capfd.readouterr()
    assert max(len(line) for line in out.splitlines()) <= 80


def test_nothing_of_a_command_stays_behind_in_the_log(capfd: Captured) -> None:
    main(["config", "show"])
    logging.getLogger("plexd").error("hello")
    assert "hello" not in capfd.readouterr().out


@pytest.fixture
def demonstrates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float | None, str]]:
    calls: list[tuple[float | None, str]] = []

    def run(*, for_seconds: float | None, listen: str) -> int:
        calls.append((for_seconds, listen))
        return 0

    monkeypatch.setattr(demo, "run", run)
    return calls


def test_demo_gets_its_options(demonstrates: list[tuple[float | None, str]]) -> None:
    assert main(["demo"]) == 0
    assert main(["demo", "--for", "1m30s", "--listen", "[::1]:8080"]) == 0
    assert demonstrates == [(None, "127.0.0.1:0"), (90.0, "[::1]:8080")]


def test_a_reader_that_leaves_a_demo_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    def run(**_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(demo, "run", run)
    assert main(["demo"]) == 0
    assert capfd.readouterr() == ("", "")


def test_help_that_cannot_be_printed_is_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    def fail(_: str) -> None:
        raise OutputError("cannot write to standard output: No space left on device")

    monkeypatch.setattr(console, "put", fail)
    assert main(["--help"]) == 1
    assert capfd.readouterr().err.startswith("plexd: cannot write to standard output")
