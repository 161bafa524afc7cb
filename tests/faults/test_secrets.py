"""Every secret of a run is looked for in everything the two programs leave behind (E08)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.test_agent_and_server import NODE, PATIENCE, Programs, _until

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATOR = "canary-operator-0123456789"
STRANGER = "canary-stranger-0123456789"


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    found = Programs(tmp_path)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def shown(programs: Programs) -> dict[str, bytes]:
    """The command lines of what runs, by program and process."""
    running = [process for process in programs.started if process.poll() is None]
    return {
        f"ps {process.args!r}": Path(f"/proc/{process.pid}/cmdline").read_bytes()
        for process in running
    }


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_no_secret_is_in_a_log_a_dump_a_process_list_or_a_spool(
    programs: Programs, tmp_path: Path
) -> None:
    identity = programs.create_node()
    operator = tmp_path / "operator"
    operator.write_text(OPERATOR)
    operator.chmod(0o600)
    serve = ["serve", "--data-dir", "server", "--operator-token-file", "operator", "--listen"]
    server = programs.start("plexd_server", *serve, "127.0.0.1:0")
    assert server.stdout is not None
    address = server.stdout.readline().removeprefix("listening on ").strip()
    agent = programs.run_agent(address, PLEXD_METRICS_BATCH_SIZE="1")
    _until(lambda: "report accepted" in programs.log_of(agent), "nothing was accepted")
    seen = shown(programs)
    server.kill()  # from now on every report fails, with tracebacks in the log of level debug
    server.wait(PATIENCE)
    _until(lambda: "report failed" in programs.log_of(agent), "nothing has failed")
    agent.kill()  # what the spool holds now stays in its files
    agent.wait(PATIENCE)
    again = programs.start("plexd_server", *serve, address.removeprefix("http://"))
    assert again.stdout is not None
    again.stdout.readline()
    refused = programs.run_agent(
        address, PLEXD_API_AUTH_TOKEN=STRANGER, PLEXD_METRICS_BATCH_SIZE="1"
    )
    _until(lambda: "401" in programs.log_of(refused), "a stranger was not refused")
    seen |= shown(programs)
    refused.send_signal(signal.SIGTERM)
    assert refused.wait(PATIENCE) == 0
    settings = programs.start(
        "plexd", "config", "show", PLEXD_API_AUTH_TOKEN=STRANGER, PLEXD_METRICS_BATCH_SIZE="1"
    )
    seen["config show"] = settings.communicate(timeout=PATIENCE)[0].encode()
    seen |= files(tmp_path)
    del seen[str(operator)], seen[str(tmp_path / "node" / "identity.json")]
    secrets = [OPERATOR, STRANGER, identity["auth_token"], identity["node_secret_key"]]
    found = [
        (name, secret)
        for name, content in seen.items()
        for secret in secrets
        if secret.encode() in content
    ]
    # The server seals with the node's key, so that its registry has to hold it (docs/adr/0007).
    registry = str(tmp_path / "server" / "registry.db")
    assert [
        (name, secret)
        for name, secret in found
        if not (secret == identity["node_secret_key"] and name.startswith(registry))
    ] == []
    assert NODE.encode() in b"".join(seen.values())  # the looking itself works
