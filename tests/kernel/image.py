"""The machine's root directory: busybox, ``wg``, modules, this Python and the reader.

Files have the paths of this system, so that libraries and the interpreter find theirs. Of the
standard library it has only what the guest imports, which is found by importing it here.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import plexd
from kernel.cpio import Entry, encode_archive
from kernel.debian import program
from kernel.tunnels import MODULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kernel.debian import Kernel

__all__ = ["encode_image"]

_PYTHON = Path(sys.executable).resolve()
_HERE = Path(__file__).parent
# Importing the guest is not enough: some modules are imported only at the first use.
_PROBE = """
import asyncio, json, runpy, sys, traceback
from importlib.machinery import PathFinder
from kernel import guest
asyncio.run(guest.read("absent0"))
def _parent(name):
    return getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", None)
print(json.dumps([
    path
    for name, module in list(sys.modules.items())
    # A module may have put another in its place, as collections.abc does from Python 3.13 on.
    for found in (module, PathFinder.find_spec(name, _parent(name)))
    for attribute in ("__file__", "__cached__", "origin", "cached")
    if (path := getattr(found, attribute, None))
]))
"""


def encode_image(kernel: Kernel) -> bytes:
    """Encode the archive for ``kernel``."""
    files = {_PYTHON, Path(program("wg")), *_imported()}
    linked = [path for path in files if path.suffix not in {".py", ".pyc"}]
    return encode_archive(
        [
            Entry("dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)),
            *(Entry(name, mode=stat.S_IFDIR | 0o755) for name in ("proc", "sys", "tmp")),
            Entry("init", (_HERE / "init.sh").read_bytes()),
            Entry("environment", _environment().encode()),
            Entry("bin/busybox", Path(program("busybox")).read_bytes()),
            *map(_entry, sorted({*files, *_libraries(linked)})),
            *_modules(kernel),
        ]
    )


def _environment() -> str:
    variables = {
        "PATH": "/bin:/usr/bin",
        "PYTHONPATH": _python_path(),
        "PLEXD_PYTHON": str(_PYTHON),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())


def _python_path() -> str:
    """Return where the guest's interpreter, which runs without ``site``, finds other packages."""
    places = (Path(plexd.__file__).parents[1], _HERE.parent, Path(msgspec.__file__).parents[1])
    return os.pathsep.join(map(str, places))


def _entry(path: Path) -> Entry:
    # A compiled module is valid only while its source has the same time.
    return Entry(str(path).lstrip("/"), path.read_bytes(), mtime=int(path.stat().st_mtime))


def _imported() -> set[Path]:
    told = subprocess.run(
        [_PYTHON, "-S", "-c", _PROBE],
        env={"PYTHONPATH": _python_path()},
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return {path for path in map(Path, json.loads(told)) if path.is_file()}


def _libraries(files: Iterable[Path]) -> set[Path]:
    """Find the shared objects that these files need, with the paths that they use."""
    told = subprocess.run(["ldd", *files], check=True, capture_output=True, text=True).stdout
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}


def _modules(kernel: Kernel) -> Iterator[Entry]:
    """Number the modules, so that their names sort in the order of loading."""
    for number, path in enumerate(kernel.modules("wireguard")):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        name = path.name.removesuffix(".xz")
        yield Entry(f"{MODULES.lstrip('/')}/{number:02}-{name}", content)
