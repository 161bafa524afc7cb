"""The machine as Linux tells it: bytes of ``/proc`` and one ``statvfs`` into a `SystemStats`."""

from plexd.procfs.errors import ProcfsError
from plexd.procfs.system_reader import LinuxSystemReader

__all__ = ["LinuxSystemReader", "ProcfsError"]
