"""The ``plexd-server`` command. Only what a command needs is imported.

Exit status: 0 done, 1 it could not be done, 2 wrong usage. An error is one line on standard error
that begins with ``plexd-server:``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from plexd.console import WRONG_USAGE, OutputError, complain, guard_descriptors, show_traceback
from plexd_server.cli.arguments import parse_arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_FAILED, _INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    guard_descriptors()
    try:
        _perform(parse_arguments(argv))
    except ValueError as err:
        complain("plexd-server", str(err))
        return WRONG_USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as err:  # noqa: BLE001 -- a fault of the program is shown with its place
        from plexd_server.errors import ServerError  # noqa: PLC0415 -- only what a command needs

        cause = _alone(err)
        if isinstance(cause, ServerError | OutputError):
            complain("plexd-server", _with_cause(cause))
        else:
            show_traceback(err)
        return _FAILED
    return 0


def _perform(options: argparse.Namespace) -> None:
    has_own = options.command in {"serve", "simulate"}
    module = options.command if has_own else "registry_commands"
    import_module(f"plexd_server.cli.{module}").run(options)


def _alone(err: Exception) -> Exception:
    """Return the only error of a group, which a `TaskGroup` made of it."""
    while isinstance(err, ExceptionGroup) and len(err.exceptions) == 1:
        err = err.exceptions[0]
    return err


def _with_cause(err: Exception) -> str:
    """Add the cause, which clients of the server must not see but its operator must."""
    reason = getattr(err.__cause__, "orig", None)
    return str(err) if reason is None else f"{err}: {reason}"
