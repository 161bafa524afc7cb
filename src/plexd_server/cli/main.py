"""The ``plexd-server`` command. Only what a command needs is imported.

Exit status: 0 done, 1 it could not be done, 2 wrong usage. An error is one line on standard error
that begins with ``plexd-server:``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.console import WRONG_USAGE, OutputError, complain, guard_descriptors
from plexd_server.cli.arguments import parse_arguments

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_FAILED, _INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    guard_descriptors()
    options = parse_arguments(argv)
    perform = {"serve": _serve, "simulate": _simulate}.get(options.command, _manage)
    return _guarded(perform, options)


def _guarded(perform: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    try:
        perform(options)
    except ValueError as err:
        return _fail(str(err), WRONG_USAGE)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as err:
        from plexd_server.errors import ServerError  # noqa: PLC0415 -- only what a command needs

        cause = _alone(err)
        if not isinstance(cause, ServerError | OutputError):
            raise
        return _fail(_with_cause(cause), _FAILED)
    return 0


def _alone(err: Exception) -> Exception:
    """Return the only error of a group, which a `TaskGroup` made of it."""
    while isinstance(err, ExceptionGroup) and len(err.exceptions) == 1:
        err = err.exceptions[0]
    return err


def _serve(options: argparse.Namespace) -> None:
    from plexd_server.cli.serve import run  # noqa: PLC0415 -- only what a command needs

    run(options)


def _simulate(options: argparse.Namespace) -> None:
    from plexd_server.cli.simulate import run  # noqa: PLC0415 -- only what a command needs

    run(options)


def _manage(options: argparse.Namespace) -> None:
    from plexd_server.cli.registry_commands import run  # noqa: PLC0415 -- only what a command needs

    run(options)


def _with_cause(err: Exception) -> str:
    """Add the cause, which clients of the server must not see but its operator must."""
    reason = getattr(err.__cause__, "orig", None)
    return str(err) if reason is None else f"{err}: {reason}"


def _fail(reason: str, status: int) -> int:
    complain("plexd-server", reason)
    return status
