"""One run of the machine: boot, do what `kernel.guest` does, power off."""

from __future__ import annotations

import lzma
import subprocess
from typing import TYPE_CHECKING

import msgspec

from kernel.debian import cached_kernel, program
from kernel.image import encode_image
from kernel.results import Results

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SECONDS", "MachineError", "run_machine"]

SECONDS = 120.0  # 8 on an idle core
_MEMORY = "320M"
_COMMAND_LINE = "console=ttyS0 quiet panic=-1"  # a panic restarts at once, which ends the emulator
_CONSOLE_TAIL = 4000


class MachineError(Exception):
    """The machine failed; the text ends with its console."""


def run_machine(directory: Path) -> Results:
    """Return what the guest found; ``directory`` is for the machine's files.

    Stops the machine after `SECONDS`. Raises `MissingError` if this system cannot run it and
    `MachineError` if the guest failed.
    """
    kernel = cached_kernel()
    emulator = program("qemu-system-x86_64")
    image, console, results = (directory / name for name in ("image", "console", "results"))
    image.write_bytes(encode_image(kernel))
    command: list[str | Path] = [
        *(emulator, "-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", _MEMORY),
        *("-no-user-config", "-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-serial", f"file:{results}"),
        *("-kernel", kernel.image, "-initrd", image, "-append", _COMMAND_LINE),
    ]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=SECONDS)
        return msgspec.msgpack.decode(lzma.decompress(results.read_bytes()), type=Results)
    except (subprocess.SubprocessError, lzma.LZMAError, msgspec.DecodeError) as err:
        told = console.read_text(errors="replace") if console.exists() else ""
        raise MachineError(f"{err}\n{told[-_CONSOLE_TAIL:]}") from err
    finally:
        image.unlink()
