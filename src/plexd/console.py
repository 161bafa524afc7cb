"""Standard output and error, written without Python's buffers, and the parser of arguments.

Python's buffers keep what could not be written, try again at exit and then change the exit
status; a reader that has ended (``| head``) would cause a traceback. Text is escaped on its way: no
name that a node or a control plane chose can move a terminal's cursor or reorder a line.
"""

from __future__ import annotations

import argparse
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from plexd.text import escaped, nearest, quoted, without_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from _typeshed import SupportsWrite

WRONG_USAGE = 2
_STDIN, STDOUT, _STDERR = 0, 1, 2
_USUAL_COLUMNS = 80
_WORD = re.compile(r"[a-z][a-z-]{0,19}")
# What other programs call our commands; no letters of it are near.
_ELSEWHERE = {
    "add": ("create",),
    "del": ("delete", "revoke"),
    "delete": ("revoke",),
    "get": ("show",),
    "ls": ("list",),
    "new": ("create",),
    "remove": ("delete", "revoke"),
    "rm": ("delete", "revoke"),
}
_OPTION = re.compile(r"(--[a-z][a-z-]{1,30}|-[A-Za-z])(=.*)?", re.DOTALL)


class OutputError(Exception):
    """What was asked for cannot be printed. The text is one sentence for the operator."""


def put(output: str | bytes) -> None:
    """Write ``output`` to standard output; stop without an error when its reader has ended.

    Raises `OutputError` for any other reason, such as a full disk.
    """
    try:
        put_whole(output)
    except OutputError as err:
        if not isinstance(err.__context__, BrokenPipeError):
            raise


def put_whole(output: str | bytes) -> None:
    """Write what is shown only once, such as a token. Raises `OutputError` if a part is lost."""
    try:
        _write(STDOUT, output)
    except OSError as err:
        raise OutputError(f"cannot write to standard output: {err.strerror}") from None


def note(sentence: str) -> None:
    """Write one line to standard error, without bootstrap tokens. Never fails."""
    # A message may quote a path with a line break in it.
    line = "".join(char if char.isprintable() else "?" for char in without_tokens(sentence))
    with suppress(OSError):
        _write(_STDERR, f"{line}\n")


def complain(program: str, sentence: str) -> None:
    """Write one line to standard error, in the name of ``program``. Never fails."""
    note(f"{program}: {sentence}")


def show_traceback(error: BaseException) -> None:
    """Write the traceback of a fault of the program to standard error. Never fails."""
    import traceback  # noqa: PLC0415 - only when things went wrong

    with suppress(OSError):
        _write(_STDERR, without_tokens("".join(traceback.format_exception(error))))


def guard_descriptors() -> None:
    """Open the closed standard descriptors, so that no later file gets the number of one of them.

    Writing to a standard output that was closed still fails, as it should.
    """
    for descriptor in (_STDIN, STDOUT, _STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The kernel gives the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDONLY if descriptor == STDOUT else os.O_RDWR)


class _Layout(argparse.RawDescriptionHelpFormatter):
    """The layout of help, which argparse makes for every option even if nobody asks for help.

    Its own way to the width loads `shutil` with all its compressors, half a megabyte.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """The width of the terminal, as `shutil.get_terminal_size` has it."""
    try:
        columns = max(0, int(os.environ.get("COLUMNS", "0")))
        return columns or os.get_terminal_size(STDOUT).columns or _USUAL_COLUMNS
    except (OSError, ValueError):  # no terminal, or no number
        return _USUAL_COLUMNS


class Parser(argparse.ArgumentParser):
    """A parser that complains in one line, and prints without Python's buffers."""

    def __init__(self, **options: str) -> None:
        super().__init__(formatter_class=_Layout, allow_abbrev=False, **options)  # type: ignore[arg-type]  # texts only

    def parse_known_args(  # type: ignore[override]  # argparse allows any namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse all arguments; what is unknown is named without values, which may be secrets.

        Each command has a parser, which knows best what was meant.
        """
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(_complaint_about(unknown, self._option_string_actions))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is; exit with `WRONG_USAGE`."""
        complain(self.prog.partition(" ")[0], f"{message} (see {self.prog} --help)")
        raise SystemExit(WRONG_USAGE)

    def _check_value(self, action: argparse.Action, value: str) -> None:
        # argparse would list every command; the one that was meant helps more.
        if isinstance(action, Commands) and value not in (action.choices or ()):
            raise argparse.ArgumentError(None, _no_command(value, action.choices or ()))
        super()._check_value(action, value)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:  # noqa: ARG002 - argparse's signature; only help and version come here
        put(message)


Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse names the type nowhere else


class Instead(argparse.Action):
    """An option that many try and that there is not: ``const`` says what to do instead.

    The value is not repeated: it may be a secret, and the terminal may be recorded.
    """

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error(str(self.const))


def _no_command(word: str, known: Iterable[str]) -> str:
    if _WORD.fullmatch(word):
        return f"there is no command {quoted(word)}{_meant(word, known)}"
    # Most often the value of an option that was put before its command.
    return (
        "the first word has to be a command, and options follow it; what was given is not shown, "
        "as it may be a secret"
    )


def _meant(word: str, known: Iterable[str]) -> str:
    named = next((each for each in _ELSEWHERE.get(word, ()) if each in known), word)
    return nearest(named, known)


def _complaint_about(unknown: Sequence[str], known: Mapping[str, argparse.Action]) -> str:
    named = [option[1] for option in map(_OPTION.fullmatch, unknown) if option]
    if named:
        shown = [name for name, action in known.items() if action.help != argparse.SUPPRESS]
        return f"unrecognized arguments: {' '.join(named)}{nearest(named[0], shown)}"
    return "unexpected argument, not shown as it may be a secret"


def _write(descriptor: int, output: str | bytes) -> None:
    data = output if isinstance(output, bytes) else escaped(output).encode()
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
