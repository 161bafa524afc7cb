"""The two real programs: run twice, killed in turn, without a directory (A01, A07, A13, A15)."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import duckdb
import pytest

from e2e.test_agent_and_server import NODE, PATIENCE, Programs, _until
from support.oracle import Oracle

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)
AT_ONCE = {"PLEXD_METRICS_BATCH_SIZE": "1"}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_agent_and_server_killed_in_turn_leave_neither_gap_nor_duplicate(
    programs: Programs, tmp_path: Path
) -> None:
    identity = programs.create_node()
    server, address = programs.serve()
    agents = []
    for words in ("agent collected", "report accepted") * 2:
        agent = programs.run_agent(address, **AT_ONCE)
        agents.append(agent)
        _wait_for(programs, agent, words)
        kill(agent)
        kill(server)
        server, _ = programs.serve(address.removeprefix("http://"))
    last = programs.run_agent(address, **AT_ONCE)
    _wait_for(programs, last, "report accepted")
    last.send_signal(signal.SIGTERM)
    assert last.wait(PATIENCE) == 0
    assert " undelivered=0" in programs.log_of(last)
    ledger = _ledger(address, identity["auth_token"])
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) == 0
    with duckdb.connect(tmp_path / "server" / "points.duckdb", read_only=True) as store:
        stored = [
            store.execute(f"SELECT count(*), count(DISTINCT ts) FROM points_{group}").fetchall()[0]
            for group in ("system", "agent")
        ]
    assert [points == moments for points, moments in stored] == [True, True], stored
    # A point that was collected is promised by the spool only; of those accepted none may be gone.
    told = [programs.log_of(one).count("report accepted") for one in (*agents, last)]
    assert ledger["received"] == sum(points for points, _ in stored) >= sum(told)
    assert [bool(number) for number in told[1::2]] == [True, True]
    assert told[-1] > 0
    assert (ledger["gap"], ledger["evicted"], ledger["rejected"]) == (0, 0, 0)


def test_a_second_agent_on_one_spool_ends_with_who_has_it(programs: Programs) -> None:
    identity = programs.create_node()
    with Oracle() as oracle:
        first = programs.run_agent(oracle.url, **AT_ONCE)
        _wait_for(programs, first, "agent started")
        second = programs.run_agent(oracle.url, **AT_ONCE)
        assert second.wait(PATIENCE) == 1
        last = programs.log_of(second).splitlines()[-1]
        assert f"locked by pid {first.pid}" in last
        assert "Traceback" not in programs.log_of(second)
        oracle.wait_until(lambda: len(oracle.points(identity["node_id"])) >= 2)
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE) == 0
        assert not oracle.contradictions


@pytest.mark.parametrize("spoil", ["nothing can be made in it", "a file"])
def test_a_spool_that_cannot_be_on_the_disk_is_kept_in_memory_and_told(
    programs: Programs, tmp_path: Path, spoil: str
) -> None:
    identity = programs.create_node()
    if spoil == "a file":
        (tmp_path / "node" / "spool").write_text("in the way")
    else:
        (tmp_path / "node" / "spool").symlink_to("/proc")  # where not even root makes a file
    with Oracle() as oracle:
        agent = programs.run_agent(oracle.url, **AT_ONCE)
        oracle.wait_until(lambda: len(oracle.points(identity["node_id"])) >= 2)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(PATIENCE) == 0
    log = programs.log_of(agent)
    assert "spool degraded" in log
    assert "Traceback" not in log
    assert " undelivered=0" in log


def test_without_its_data_directory_it_says_so_in_one_line(programs: Programs) -> None:
    with Oracle() as oracle:
        agent = programs.run_agent(oracle.url)
        assert agent.wait(PATIENCE) == 1
    assert programs.log_of(agent).splitlines()[-1].startswith("plexd: ")
    assert "Traceback" not in programs.log_of(agent)


def test_an_agent_starts_no_processes_of_its_own(programs: Programs) -> None:
    """So that there is no fork to fail (A13)."""
    identity = programs.create_node()
    with Oracle() as oracle:
        agent = programs.run_agent(oracle.url, **AT_ONCE)
        oracle.wait_until(lambda: len(oracle.points(identity["node_id"])) >= 2)
        tasks = Path(f"/proc/{agent.pid}/task")
        children = [(task / "children").read_text() for task in tasks.iterdir()]
        assert children == [""] * len(children)


def _wait_for(programs: Programs, process: subprocess.Popen[str], words: str) -> None:
    _until(lambda: words in programs.log_of(process), f"no {words!r} in the log")


def _ledger(address: str, token: str) -> dict[str, Any]:
    request = Request(
        f"{address}/v1/nodes/{NODE}/ledger", headers={"Authorization": f"Bearer {token}"}
    )
    with urlopen(request, timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
