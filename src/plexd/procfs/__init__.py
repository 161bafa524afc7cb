"""The machine as Linux reports it: bytes of ``/proc`` and one ``statvfs`` into a `SystemStats`."""

from plexd.procfs.errors import ProcfsError
from plexd.procfs.interface_names import primary_name
from plexd.procfs.mount_point import MountPoint
from plexd.procfs.system_reader import LinuxSystemReader

__all__ = ["LinuxSystemReader", "MountPoint", "ProcfsError", "primary_name"]
