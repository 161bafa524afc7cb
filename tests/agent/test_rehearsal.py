"""What a rehearsal accepts, a run accepts; what it refuses, it refuses in a sentence."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from plexd.agent.cli.main import main
from plexd.agent.config.keys import KEYS, variable
from plexd.agent.config.settings import load_settings
from plexd.agent.errors import IdentityError, NotReadyError, SettingsError
from plexd.agent.identity import FILE_NAME
from plexd.agent.rehearsal import rehearse
from plexd.api import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str], Path]
    Captured = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("_process_state", "no_default_file")

IDENTITY = {
    "node_id": "node-a",
    "mesh_ip": "10.99.0.1",
    "node_secret_key": "0123456789abcdef" * 2,
    "auth_token": "hunter2",
}
KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def remarks(directory: Path, **environ: str) -> list[str]:
    given = {"PLEXD_DATA_DIR": str(directory), "PLEXD_API_BASE_URL": "https://plane.example"}
    return list(rehearse(load_settings(None, given | environ)))


def keep(directory: Path, content: dict[str, Any], mode: int = 0o600) -> Path:
    path = directory / FILE_NAME
    path.write_text(json.dumps(content))
    path.chmod(mode)
    return path


def test_a_node_that_has_no_identity_yet_may_be_checked(tmp_path: Path) -> None:
    assert remarks(tmp_path) == []
    assert remarks(tmp_path / "none") == []
    assert remarks(tmp_path, PLEXD_API_BASE_URL="") == []


def test_an_identity_and_a_token_file_are_read_as_the_run_reads_them(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("file-token\n")
    keep(tmp_path, IDENTITY)
    assert remarks(tmp_path, PLEXD_API_AUTH_TOKEN_FILE=str(token)) == []
    keep(tmp_path, IDENTITY, 0o644)
    with pytest.raises(IdentityError, match="open to others"):
        remarks(tmp_path)
    keep(tmp_path, IDENTITY | {"mesh_ip": "10.99.0.1/24"})
    with pytest.raises(IdentityError, match="mesh_ip"):
        remarks(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(SettingsError, match="none: No such file"):
        remarks(tmp_path, PLEXD_API_AUTH_TOKEN_FILE=f"{tmp_path}/none")


def test_peers_of_the_identity_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_DATA_DIR", str(tmp_path))
    keep(tmp_path, IDENTITY | {"peers": [{"id": "\u202eb", "public_key": KEY, "mesh_ip": "x"}]})
    assert main(["config", "check"]) == 0
    said = capfd.readouterr().err
    assert 'plexd: warning: peers left out: peer "\\u202eb": an id is 1 to 256' in said
    assert said.count("\n") == len(said.splitlines())


def test_an_identity_without_a_name_is_refused_by_check_and_run_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """As from ``--identity ${NOT_SET}`` in a unit."""
    monkeypatch.setenv("PLEXD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PLEXD_API_BASE_URL", "https://plane.example")
    monkeypatch.chdir(tmp_path)
    assert main(["config", "check", "--identity", ""]) == main(["run", "--identity", ""]) == 1
    assert capfd.readouterr().err.splitlines() == ["plexd: . is not a regular file"] * 2


def test_an_identity_elsewhere_is_checked_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_DATA_DIR", "")
    lacking = "plexd: warning: data_dir: is empty; `plexd run` needs it, or --identity FILE\n"
    assert main(["config", "check"]) == 0
    assert lacking in capfd.readouterr().err
    path = keep(tmp_path, IDENTITY)
    assert main(["config", "check", "--identity", str(path)]) == 0
    assert lacking not in capfd.readouterr().err
    path.chmod(0o644)
    assert main(["config", "check", "--identity", str(path)]) == 1
    assert "open to others" in capfd.readouterr().err
    assert main(["config", "check", "--identity", f"{path}.none"]) == 1
    assert "no identity at" in capfd.readouterr().err


def test_a_file_that_only_another_user_can_read_is_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = keep(tmp_path, IDENTITY | {"node_id": "no id"})
    token = tmp_path / "token"
    token.write_text("")
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.R_OK)
    ending = "not checked, because this user cannot read it"
    expected = [f"{path}: {ending}", f"{token}: {ending}"]
    assert remarks(tmp_path, PLEXD_API_AUTH_TOKEN_FILE=str(token)) == expected


def test_a_directory_that_only_another_user_can_enter_is_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "lstat", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    ending = "not checked, because this user cannot read it"
    assert remarks(tmp_path) == [f"{tmp_path}/identity.json: {ending}"]


def test_a_data_directory_is_checked_as_the_run_checks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("PLEXD_API_BASE_URL", "https://plane.example")
    keep(tmp_path, IDENTITY)
    for path in (tmp_path / FILE_NAME, tmp_path / ("x" * 300)):
        monkeypatch.setenv("PLEXD_DATA_DIR", str(path))
        assert main(["config", "check"]) == main(["run"]) == 1
        first, second = capfd.readouterr().err.splitlines()
        assert first == second


def test_a_data_directory_that_this_user_cannot_write_to_is_a_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, IDENTITY)
    as_asked = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: mode == os.R_OK and as_asked(path, mode, **how)
    )
    (remark,) = remarks(tmp_path)
    assert remark.startswith(f"data_dir {tmp_path} cannot be written to; ")


def peer(**changes: str) -> str:
    fields = {"id": "b", "public_key": KEY, "mesh_ip": "fd00::1"} | changes
    return json.dumps(fields)


@pytest.mark.parametrize(
    "peers",
    [
        [peer(), peer(id="c", public_key="A" * 43 + "=", mesh_ip="fd00:0::1")],
        [peer(), peer(id="c", public_key="A" * 43 + "=", mesh_ip="FD00::0:1")],
        [peer(public_key="A" * 42 + "B=")],  # bits that no decoder keeps
        [peer(public_key=KEY[:-1])],
        [peer(mesh_ip="10.0.0.1/32")],
        [peer(), peer(id="c", mesh_ip="fd00::2")],
    ],
)
def test_peers_that_the_index_refuses_are_refused_by_every_command_alike(
    config_file: Write, capfd: Captured, peers: list[str]
) -> None:
    path = config_file(f"peers: [{', '.join(peers)}]")
    for command in (["config", "check"], ["collect"], ["run"]):
        assert main(["--config", str(path), *command]) == 2
        assert capfd.readouterr().err.startswith(f"plexd: {path}:1: peers")


@pytest.mark.parametrize(
    ("variable_", "value"),
    [
        ("PLEXD_API_BASE_URL", "https://plané.example"),
        ("PLEXD_API_BASE_URL", "https://a/b c"),
        ("PLEXD_API_BASE_URL", "http://[fe80::1"),
        ("PLEXD_API_PROXY", "https://u:canary@proxy.example"),
        ("PLEXD_SPOOL_MAX_BYTES", "99999999999999999999GiB"),
        ("PLEXD_SPOOL_MAX_BYTES", "1025TiB"),
    ],
)
def test_a_value_that_no_run_can_use_is_refused_by_the_check(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured, variable_: str, value: str
) -> None:
    monkeypatch.setenv(variable_, value)
    assert main(["config", "check"]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"plexd: {variable_}: ")
    assert "canary" not in said


@pytest.mark.parametrize("directory", ["/" + "x" * 300, "/proc/self/fd/none", "/dev/null"])
def test_a_data_directory_that_cannot_be_one_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured, directory: str
) -> None:
    monkeypatch.setenv("PLEXD_DATA_DIR", directory)
    monkeypatch.setenv("PLEXD_API_BASE_URL", "https://plane.example")
    for command in (["run"], ["collect", "--json"], ["config", "check"]):
        main(command)
        assert "unexpected" not in capfd.readouterr().err


def test_what_only_the_client_refuses_is_a_sentence_as_well() -> None:
    settings = load_settings(None, {})
    for api in (Config("http://x?y"), Config("http://x", auth_token="hunter2 canary")):
        with pytest.raises(SettingsError, match=r"^api: ") as caught:
            list(rehearse(replace(settings, api=api)))
        assert "canary" not in str(caught.value)


def complaint(environ: dict[str, str]) -> str:
    """What a command would print; an error of another kind fails the test."""
    try:
        list(rehearse(load_settings(None, environ)))
    except (SettingsError, NotReadyError) as err:
        return str(err)
    return ""


ODD = st.sampled_from(["", "-1", "a" * 300, "\x7f", "[]", "null", "é", "::1", "%", "0", "..", "/"])
VALUES = ODD | st.text(max_size=40) | st.from_regex(r"(https?://)?[\w.@:\[\]%/-]{1,20}")


@given(given_=st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES, min_size=1, max_size=3))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_environment_says_is_accepted_or_one_sentence(
    tmp_path: Path, given_: dict[str, str]
) -> None:
    environ = {"PLEXD_DATA_DIR": str(tmp_path)}
    environ |= {variable(key): value for key, value in given_.items()}
    assert complaint(environ).isprintable()


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
PEER = st.dictionaries(st.sampled_from(["id", "public_key", "mesh_ip"]), LEAF)
JSON = LEAF | PEER | st.lists(LEAF | PEER, max_size=3)


@given(changes=st.dictionaries(st.sampled_from([*IDENTITY, "peers"]), JSON, min_size=1))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_identity_says_is_accepted_or_one_sentence(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    keep(tmp_path, IDENTITY | changes)
    said = complaint({"PLEXD_DATA_DIR": str(tmp_path), "PLEXD_WIREGUARD_INTERFACE": ""})
    assert said.isprintable()
    assert IDENTITY["node_secret_key"] not in said


def test_peers_that_are_null_are_none(tmp_path: Path) -> None:
    keep(tmp_path, IDENTITY | {"peers": None})
    assert remarks(tmp_path) == []
