"""Running a program so that file modes apply to it, even as root."""

from __future__ import annotations

import ctypes
import functools

__all__ = ["bound_by_file_modes"]

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def bound_by_file_modes() -> None:
    """For ``preexec_fn``: the next program cannot override permissions (capabilities(7)).

    A user who is not root has nothing to drop; then the calls fail without harm.
    """
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        _libc().prctl(_PR_CAPBSET_DROP, capability)
