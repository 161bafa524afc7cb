from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plexd.agent.errors import IdentityError
from plexd.agent.identity import FILE_NAME, Identity, load_identity, save_identity
from plexd.api import Peer

if TYPE_CHECKING:
    from pathlib import Path

KEY = "0123456789abcdef0123456789ABCDEF"
IDENTITY = Identity(
    node_id="node-a",
    mesh_ip="10.99.0.1",
    node_secret_key=KEY,
    auth_token="hunter2",
    peers=(Peer("node-b", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=", "10.99.0.2"),),
)
DOCUMENT = {
    "node_id": "node-a",
    "mesh_ip": "10.99.0.1",
    "node_secret_key": KEY,
    "auth_token": "hunter2",
}


def place(directory: Path, content: bytes | dict[str, Any], mode: int = 0o600) -> Path:
    path = directory / FILE_NAME
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return path


def complaint(directory: Path) -> str:
    with pytest.raises(IdentityError) as caught:
        load_identity(directory)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)
    assert KEY not in str(caught.value)
    return str(caught.value)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_identity(tmp_path, IDENTITY)
    assert load_identity(tmp_path) == IDENTITY
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [FILE_NAME]  # noqa: PTH208 - hidden files count


def test_saving_replaces_what_was_there_and_what_an_earlier_try_left(tmp_path: Path) -> None:
    place(tmp_path, b"old", 0o644)
    (tmp_path / f".{FILE_NAME}.{os.getpid()}").write_text("left over")
    save_identity(tmp_path, IDENTITY)
    assert load_identity(tmp_path) == IDENTITY


def test_an_identity_never_shows_its_secrets() -> None:
    text = repr(IDENTITY) + str(IDENTITY) + f"{IDENTITY}"
    assert "node-a" in text
    assert KEY not in text
    assert "hunter2" not in text


def test_peers_may_be_left_out_and_what_is_not_known_is_passed_over(tmp_path: Path) -> None:
    place(tmp_path, {**DOCUMENT, "added_later": 1})
    assert load_identity(tmp_path).peers == ()


def test_a_missing_identity_says_where_to_put_one(tmp_path: Path) -> None:
    assert complaint(tmp_path) == (
        f"no identity at {tmp_path}/identity.json: run `plexd register`, or save there, "
        "with mode 0600, what `plexd-server node create` printed"
    )


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666, 0o660])
def test_an_identity_open_to_others_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = place(tmp_path, DOCUMENT, mode)
    assert complaint(tmp_path) == (
        f"{path} is open to others than its owner (mode {mode:04o}); run: chmod 0600 {path}"
    )


def test_an_identity_as_secrets_are_delivered_is_loaded(tmp_path: Path) -> None:
    place(tmp_path, DOCUMENT, 0o440)
    assert load_identity(tmp_path).node_id == "node-a"


def test_an_identity_of_another_user_says_whose_it_has_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    path = place(tmp_path, DOCUMENT)
    monkeypatch.setattr(os, "open", refuse)
    cure = "give it to the user plexd runs as"
    assert complaint(tmp_path) == f"cannot read {path}: Permission denied; {cure}"


def test_something_else_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    os.mkfifo(path, 0o600)
    assert complaint(tmp_path) == f"{path} is not a regular file"
    path.unlink()
    path.mkdir(mode=0o700)
    assert complaint(tmp_path) == f"{path} is not a regular file"
    path.rmdir()
    path.symlink_to(path)
    assert complaint(tmp_path) == f"cannot read {path}: Too many levels of symbolic links"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file ends too early"),
        (b'{"node_id": "a', "the file ends too early"),
        (b"hunter2", "it is not JSON"),
        (b'{"node_id": "\xff"}', "it is not UTF-8 text"),
        ("{}".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"x":' + b"[" * 100_000, "it is not JSON"),
        (b"{}", "Object missing required field `node_id`"),
        (b'{"node_id": 5}', "Expected `str`, got `int` - at `$.node_id`"),
    ],
)
def test_a_garbled_identity_names_file_and_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = place(tmp_path, content)
    assert complaint(tmp_path) == f"{path} is not an identity: {reason}"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("node_id", "", "node_id is not 1 to 63 of A-Z a-z 0-9 . _ -"),
        ("node_id", "../x", "node_id is not 1 to 63 of A-Z a-z 0-9 . _ -"),
        ("node_id", "a\n", "node_id is not 1 to 63 of A-Z a-z 0-9 . _ -"),
        ("node_id", "a" * 64, "node_id is not 1 to 63 of A-Z a-z 0-9 . _ -"),
        ("mesh_ip", "10.0.0.1/24", "mesh_ip is not an IP address"),
        ("node_secret_key", "short", "node_secret_key is not 32 printable ASCII characters"),
        ("node_secret_key", "é" * 32, "node_secret_key is not 32 printable ASCII characters"),
        ("auth_token", "hunter2\r\nX: y", "auth_token is not printable ASCII"),
    ],
)
def test_a_field_that_cannot_be_right_is_refused_unseen(
    tmp_path: Path, field: str, value: str, reason: str
) -> None:
    path = place(tmp_path, {**DOCUMENT, field: value})
    assert complaint(tmp_path) == f"{path} is not an identity: {reason}"


def test_an_identity_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="node_id is not"):
        save_identity(tmp_path, Identity("..", "::1", KEY, ""))
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "none"
    reason = re.escape(f"cannot write {directory}/identity.json: No such file or directory")
    with pytest.raises(IdentityError, match=f"^{reason}$"):
        save_identity(directory, IDENTITY)


def test_a_failed_save_leaves_the_old_identity_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_identity(tmp_path, IDENTITY)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IdentityError, match="No space left on device"):
        save_identity(tmp_path, Identity("node-z", "::1", KEY, ""))
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE_NAME]
    assert load_identity(tmp_path) == IDENTITY


@given(st.binary(max_size=100) | st.text().map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bytes_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    place(tmp_path, content)
    with pytest.raises(IdentityError) as caught:
        load_identity(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_a_line_break_behind_the_token_are_no_fault(
    tmp_path: Path, mark: bytes, end: str
) -> None:
    secrets = {"auth_token": f"hunter2{end}", "node_secret_key": f"{KEY}{end}"}
    place(tmp_path, mark + json.dumps(DOCUMENT | secrets).encode())
    identity = load_identity(tmp_path)
    assert (identity.auth_token, identity.node_secret_key) == ("hunter2", KEY)


def test_a_second_line_of_the_token_is_a_fault(tmp_path: Path) -> None:
    place(tmp_path, DOCUMENT | {"auth_token": "hunter2\n\n"})
    assert "auth_token is not printable ASCII" in complaint(tmp_path)
