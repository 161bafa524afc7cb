"""Who can really read a file that holds a secret, and what an operator is told to do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.agent.private_file import how_to_close, opened

if TYPE_CHECKING:
    from collections.abc import Callable

USER, GROUP, SECOND = 1000, 1001, 1002
STRANGER = 2000


class Machine:
    """What the kernel says of a file and of this process, chosen by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._patch = monkeypatch
        self._path = path
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def hint(
        self, mode: int, owner: int, group: int, *, user: int = USER, fixed: bool = False
    ) -> str:
        about = os.stat_result((0o100000 | mode, 1, 1, 1, owner, group, 1, 0, 0, 0))
        flags = os.ST_RDONLY if fixed else 0
        system = os.statvfs_result((1, 1, 1, 1, 1, 1, 1, 1, flags, 255))
        self._patch.setattr(os, "fstat", lambda _: about)
        self._patch.setattr(os, "fstatvfs", lambda _: system)
        self._patch.setattr(os, "geteuid", lambda: user)
        self._patch.setattr(os, "getegid", lambda: 0 if user == 0 else GROUP)
        self._patch.setattr(os, "getgroups", lambda: [] if user == 0 else [SECOND])
        return how_to_close(self._path, -1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path / "a secret")


@pytest.mark.parametrize(
    ("mode", "owner", "group"),
    [
        (0o600, USER, GROUP), (0o400, USER, GROUP), (0o600, STRANGER, STRANGER),
        (0o440, USER, GROUP), (0o440, USER, SECOND), (0o440, USER, 0),
        (0o440, 0, 0), (0o440, 0, GROUP), (0o640, 0, SECOND),
    ],
)  # fmt: skip
def test_a_file_for_this_user_root_and_a_group_of_its_own_is_closed(
    machine: Machine, mode: int, owner: int, group: int
) -> None:
    assert machine.hint(mode, owner, group) == ""
    assert machine.hint(0o440, 0, 0, user=0) == ""


@pytest.mark.parametrize(
    ("mode", "owner", "group"),
    [
        (0o644, 0, 0), (0o444, USER, GROUP), (0o604, USER, GROUP), (0o660, 0, GROUP),
        (0o440, USER, STRANGER), (0o440, STRANGER, GROUP), (0o640, 0, STRANGER),
        (0o640, USER, GROUP),
    ],
)  # fmt: skip
def test_what_others_can_read_is_open_and_the_hint_can_be_followed(
    machine: Machine, tmp_path: Path, mode: int, owner: int, group: int
) -> None:
    name = f"'{tmp_path}/a secret'"
    chmod = f"chmod 0600 {name}"
    own, others = f"run: {chmod}", f"run as root: chown {USER} {name} && {chmod}"
    assert machine.hint(mode, owner, group) == (own if owner == USER else others)
    if (mode, group) != (0o440, 0):
        assert machine.hint(mode | 0o004, owner, group, user=0) == own


USERS_ENTRY, GROUPS_ENTRY, OWNING_GROUP, MASK = 0x02, 0x08, 0x04, 0x10


def put_access_list(path: Path, *entries: tuple[int, int, int]) -> None:
    """As setfacl(1) does; each entry is a tag, what it allows, and whom."""
    nobody = 2**32 - 1
    rest = [(1, 6, nobody), (0x20, 0, nobody)]
    if OWNING_GROUP not in [tag for tag, _, _ in entries]:
        rest.append((OWNING_GROUP, 0, nobody))
    packed = (struct.pack("<HHI", *entry) for entry in sorted([*entries, *rest]))
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(packed))


@pytest.mark.parametrize(
    ("entries", "is_closed"),
    [
        ([(USERS_ENTRY, 4, USER), (MASK, 4, 0)], True),
        ([(USERS_ENTRY, 4, STRANGER), (MASK, 4, 0)], False),
        ([(USERS_ENTRY, 4, STRANGER), (MASK, 0, 0)], True),
        ([(USERS_ENTRY, 4, 0), (MASK, 4, 0)], True),
        ([(GROUPS_ENTRY, 4, SECOND), (MASK, 4, 0)], True),
        ([(GROUPS_ENTRY, 6, SECOND), (MASK, 4, 0)], True),
        ([(GROUPS_ENTRY, 6, SECOND), (MASK, 6, 0)], False),
        ([(GROUPS_ENTRY, 4, STRANGER), (MASK, 4, 0)], False),
        ([(GROUPS_ENTRY, 4, SECOND), (OWNING_GROUP, 4, 0), (MASK, 4, 0)], False),
    ],
)
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another group")
def test_who_is_in_an_access_list_counts_and_not_its_mask(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    entries: list[tuple[int, int, int]],
    *,
    is_closed: bool,
) -> None:
    path = tmp_path / "secret"
    path.write_text("x")
    os.chown(path, 0, STRANGER)
    try:
        put_access_list(path, *entries)
    except OSError as err:
        pytest.skip(f"no access lists on this file system: {err}")
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.setattr(os, "getgroups", lambda: [SECOND])
    with opened(path) as descriptor:
        assert (how_to_close(path, descriptor) == "") is is_closed


def test_on_a_read_only_mount_one_group_may_read_and_chmod_is_no_hint(machine: Machine) -> None:
    assert machine.hint(0o440, 0, STRANGER, fixed=True) == ""
    assert machine.hint(0o640, 0, STRANGER, user=0, fixed=True) == ""
    for mode in (0o644, 0o444, 0o460):
        assert "defaultMode: 0400" in machine.hint(mode, 0, 0, fixed=True)
        assert "chmod" not in machine.hint(mode, 0, 0, fixed=True)


def test_what_is_in_systemds_directory_of_credentials_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "credentials" / "token", tmp_path / "token"
    inside.parent.mkdir()
    for path in (inside, outside):
        path.write_text("x")
        path.chmod(0o444)
    link = tmp_path / "credentials" / "link"
    link.symlink_to(outside)
    expected: dict[Path, bool] = {inside: True, outside: False, link: False}
    for directory, is_used in ((str(inside.parent), True), ("credentials", False), ("", False)):
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
        for path, is_closed in expected.items():
            with opened(path) as descriptor:
                assert (how_to_close(path, descriptor) == "") is (is_closed and is_used)


def test_a_secret_of_kubernetes_is_read_through_its_links(
    tmp_path: Path, secret_volume: Callable[[str], Path]
) -> None:
    path = secret_volume("first")
    for content in ("first", "second"):
        secret_volume(content)
        with opened(path) as descriptor:
            assert os.read(descriptor, 100) == content.encode()
            assert how_to_close(path, descriptor) == ""
    assert path.is_symlink()
    assert path.parent == tmp_path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="mounts need root")
def test_a_real_mount_that_is_read_only_is_known_by_the_kernels_word(tmp_path: Path) -> None:
    look = (
        "import pathlib, sys; from plexd.agent.private_file import how_to_close, opened\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with opened(path) as descriptor: print(repr(how_to_close(path, descriptor)))"
    )
    script = (
        "set -e; mount -t tmpfs none $1; echo x > $1/s; chown 0:4242 $1/s; chmod $2 $1/s;"
        'mount -o remount,ro $1; exec "$3" -c "$4" $1/s'
    )
    hints = {}
    for mode in ("0440", "0444"):
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            str(tmp_path),
            mode,
        ]
        done = subprocess.run([*command, sys.executable, look], capture_output=True, check=True)
        hints[mode] = done.stdout.decode().strip()
    assert hints["0440"] == "''"
    assert "defaultMode" in hints["0444"]


@pytest.fixture
def secret_volume(tmp_path: Path) -> Callable[[str], Path]:
    """Puts a secret as the kubelet does: two links, the second exchanged by a rename."""

    def put(content: str) -> Path:
        version = tmp_path / f"..{content}"
        version.mkdir(exist_ok=True)
        path = version / "token"
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o440)
        (tmp_path / "..data_tmp").symlink_to(version.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        link = tmp_path / "token"
        if not link.is_symlink():
            link.symlink_to(Path("..data") / "token")
        return link

    return put
