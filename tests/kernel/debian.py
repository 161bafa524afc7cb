"""Debian's kernel, unpacked beside the system and not installed.

``python -m kernel.debian`` fetches it; everything else only uses the cache, ``plexd-kernel`` under
``$XDG_CACHE_HOME``. The programs that the machine needs come from this system and are never
fetched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

__all__ = ["Kernel", "MissingError", "cached_kernel", "fetch_kernel", "program"]

_META_PACKAGE = "linux-image-cloud-amd64"
_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "wg": "wireguard-tools",
    "modprobe": "kmod",
    "depmod": "kmod",
    "apt-cache": "apt",
}
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


class MissingError(Exception):
    """Something is missing on this system; the text says how to get it."""


class Kernel(Struct, frozen=True):
    """A kernel's image and its modules in one unpacked tree."""

    root: Path
    version: str

    @property
    def image(self) -> Path:
        """The file to boot."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    def modules(self, name: str) -> list[Path]:
        """List the module and all that it needs, in the order of loading."""
        told = _output(
            *(program("modprobe"), "--dirname", str(self.root), "--set-version", self.version),
            *("--show-depends", name),
        )
        return [Path(path) for path in re.findall(r"^insmod (\S+)", told, re.MULTILINE)]


def program(name: str) -> str:
    """Find a program. Raises `MissingError`, which names its Debian package."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise MissingError(f"no {name}: apt-get install {_PACKAGES.get(name, name)}")
    return found


def cached_kernel() -> Kernel:
    """Return the kernel that was fetched last. Raises `MissingError` if there is none."""
    trees = [tree for tree in _cache().glob("linux-image-*") if tree.is_dir()]
    if not trees:
        raise MissingError("no kernel was fetched: make test-kernel")
    root = max(trees, key=lambda tree: tree.stat().st_mtime_ns)
    (modules,) = (root / "lib/modules").iterdir()
    return Kernel(root, modules.name)


def fetch_kernel() -> Kernel:
    """Fetch the kernel of the system's package lists, unless the cache has it."""
    asked = [program("apt-cache"), "depends", _META_PACKAGE]
    told = subprocess.run(asked, check=False, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"Depends: (linux-image-\S+)", told)
    if found is None:
        raise MissingError(f"the package lists have no {_META_PACKAGE}: apt-get update")
    package = found[1]
    if not (_cache() / package).is_dir():
        _unpack(package)
    (_cache() / package).touch()
    return cached_kernel()


def _unpack(package: str) -> None:
    """Download into a new directory, which moves into the cache when it is complete."""
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="unpacking-") as directory:
        # apt's own user may not write there, only root may.
        options = ("--quiet=2", "--option=APT::Sandbox::User=root")
        subprocess.run(["apt-get", *options, "download", package], cwd=directory, check=True)
        (archive,) = Path(directory).glob("*.deb")
        tree = Path(directory) / package
        subprocess.run(["dpkg-deb", "--extract", archive, tree], check=True)
        if not (tree / "lib").exists():  # Debian moves it below usr; kmod looks here
            (tree / "lib").symlink_to("usr/lib")
        (modules,) = (tree / "lib/modules").iterdir()
        subprocess.run([program("depmod"), "--basedir", tree, modules.name], check=True)
        tree.rename(_cache() / package)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "plexd-kernel"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch_kernel().image}\n")
    except MissingError as err:
        sys.exit(str(err))
