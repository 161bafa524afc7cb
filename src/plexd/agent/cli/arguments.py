"""The command line's grammar and its help; `plexd --version` loads no more than this."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from plexd import __version__
from plexd.console import Commands, Instead, Parser, put

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = """\
examples:
  plexd collect          measure this machine once and print a table
  plexd collect --json   the same, exactly as it would be sent
  plexd demo             a control plane and an agent on this machine
  plexd register         make this machine a node of the mesh
  plexd config check     is /etc/plexd/config.yaml right?
  plexd run              measure and report until stopped

Every setting can also come from the environment: PLEXD_API_BASE_URL and so on.
"""
_FILE = "default: /etc/plexd/config.yaml"
_RUN = """\
Measures and reports until SIGTERM or Ctrl-C; both end it cleanly, with status
0. Needs api.base_url, and the node's identity in data_dir. Logs go to standard
error.
"""
_REGISTER = """\
Makes a node of this machine: shows the control plane a bootstrap token
(`plexd-server token create`) and the interface's public key, and keeps the
identity it gets in data_dir. The token is read from a file, from PLEXD_TOKEN
or from standard input.
"""
_NOT_HERE = (
    "a token is not accepted on the command line, where every user of this machine can see it; use "
    "PLEXD_TOKEN=... plexd register, or --token-file FILE, or standard input; then revoke this "
    "one: plexd-server token revoke"
)
_COLLECT = """\
Measures once and prints the result. Nothing is sent, nothing is stored, and no
configuration file is needed. Status 1 only if nothing at all was measured.
"""
_CHECK = """\
Reads the configuration file, the environment and the identity as `plexd run`
would, and says "ok" or what is wrong and where. Status 2 if it is wrong, or 1
if it is the identity.
"""
_SHOW = """\
Prints the settings in effect as YAML: the environment over the file over the
defaults, with a comment where each was set. Secrets are redacted.
"""
_DEMO = """\
Starts a control plane with its page and an agent of this very machine, prints
the address of the page, and throws everything away at the end.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command and its options. Exits, as argparse does, for help, version and wrong usage.

    ``command`` is ``"run"``, ``"config check"`` and so on, or None when none was given.
    """
    options = _grammar().parse_args(argv)
    if options.command is None:
        put(options.parser.format_help())
    return options


def _grammar() -> Parser:
    parser = Parser(
        prog="plexd",
        description="Measures a node of a WireGuard mesh and reports to its control plane.",
        epilog=_EXAMPLES,
    )
    parser.set_defaults(command=None, parser=parser)
    parser.add_argument("--version", action="version", version=f"plexd {__version__}")
    parser.add_argument("--config", metavar="FILE", help=_FILE)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_run(commands)
    _add_register(commands)
    _add_collect(commands)
    _add_config(commands)
    _add_demo(commands)
    return parser


def _add(commands: Commands[Parser], command: str, about: str, more: str) -> Parser:
    parser = commands.add_parser(command.rpartition(" ")[2], help=about, description=more)
    parser.set_defaults(command=command)
    # Suppressed, or its default would replace a --config given before the command.
    parser.add_argument("--config", metavar="FILE", help=_FILE, default=argparse.SUPPRESS)
    return parser


def _add_run(commands: Commands[Parser]) -> None:
    parser = _add(commands, "run", "measure and report until stopped", _RUN)
    parser.add_argument(
        "--identity", metavar="FILE", help="default: identity.json in the data directory"
    )


def _add_register(commands: Commands[Parser]) -> None:
    add = _add(commands, "register", "make this machine a node of the mesh", _REGISTER).add_argument
    add("--server", metavar="URL", help="the control plane (default: api.base_url)")
    add("--token-file", metavar="FILE", help="the bootstrap token (default: as above)")
    add("--token", nargs="?", action=Instead, const=_NOT_HERE, help=argparse.SUPPRESS)
    add("--interface", metavar="NAME", help="the mesh's (default: wireguard.interface)")
    add("--public-key", metavar="KEY", help="instead of the interface's")
    add("--mesh-ip", metavar="ADDRESS", help="instead of the interface's")
    add("--hostname", metavar="NAME", help="what the node is named after (default: this host's)")
    add("--force", action="store_true", help="even if this machine is a node already")


def _add_collect(commands: Commands[Parser]) -> None:
    parser = _add(commands, "collect", "measure once and print the result", _COLLECT)
    parser.add_argument("--json", action="store_true", help="print the batch as it would be sent")


def _add_config(commands: Commands[Parser]) -> None:
    about = "check or show the configuration"
    parser = commands.add_parser("config", help=about, description=f"{about.capitalize()}.")
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND")
    check = _add(actions, "config check", "say whether the configuration is right", _CHECK)
    check.add_argument("--identity", metavar="FILE", help="the one that `plexd run` will be given")
    _add(actions, "config show", "print the settings in effect", _SHOW)


def _add_demo(commands: Commands[Parser]) -> None:
    parser = commands.add_parser(
        "demo", help="a control plane and an agent on this machine", description=_DEMO
    )
    parser.set_defaults(command="demo")
    parser.add_argument(
        "--for",
        dest="for_seconds",
        metavar="DURATION",
        type=_seconds,
        help="end by itself, such as after 30s (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default="127.0.0.1:0",
        help="where the page is served (default: 127.0.0.1 and a free port)",
    )


def _seconds(text: str) -> float:
    from plexd.units import parse_duration  # noqa: PLC0415 - only with --for

    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as err:
        hint = f"; {err}" if str(err) else ""
        raise argparse.ArgumentTypeError(f"expected a duration such as 30s{hint}") from None
    if seconds == 0:
        raise argparse.ArgumentTypeError("must be longer than nothing")
    return seconds


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT, such as 127.0.0.1:8080")
    return text
