"""The command line. What a command needs is imported once the command is known.

Exit status: 0 done, 1 it could not be done, 2 wrong usage or configuration. Every error is one
line on standard error that begins with ``plexd:``.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from plexd.agent.cli.arguments import parse_arguments
from plexd.agent.errors import NotReadyError, SettingsError
from plexd.console import STDOUT, WRONG_USAGE, OutputError, complain, guard_descriptors

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_OK, _FAILED, _INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the program's own arguments); return the status."""
    guard_descriptors()
    try:
        return _perform(parse_arguments(argv))
    except SystemExit as leaving:  # --help, --version and wrong usage
        return int(leaving.code or _OK)
    except SettingsError as err:
        complain("plexd", str(err))
        return WRONG_USAGE
    except (NotReadyError, OutputError) as err:
        complain("plexd", str(err))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_output()
        return _OK
    except Exception as err:  # noqa: BLE001 - a traceback helps nobody at a terminal
        _explain(err)
    return _FAILED


def _perform(options: argparse.Namespace) -> int:
    if options.command is None:  # the help was printed instead
        return WRONG_USAGE
    if options.command != "run":
        return _dispatch(options)
    # Before everything slow: a service manager may stop the agent at once, and being stopped is the
    # ordinary end of a run.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _dispatch(options)
    except KeyboardInterrupt:
        return _OK


def _dispatch(options: argparse.Namespace) -> int:
    from plexd.agent.cli.commands import COMMANDS  # noqa: PLC0415 - `--version` needs none of it

    return COMMANDS[options.command](options)


def _explain(error: BaseException) -> None:
    import logging  # noqa: PLC0415 - only when things went wrong

    logger = logging.getLogger("plexd.agent")
    logger.debug("unexpected error", exc_info=error, extra={"component": "agent"})
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    reason = f"{type(error).__name__}: {error}"
    complain("plexd", f"unexpected error: {reason} (PLEXD_LOG_LEVEL=debug shows where)")


def _silence_output() -> None:
    """Let Python flush at exit what the reader did not read, without a message."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
