"""The grammar of the command line and its help. ``--version`` loads no more than this file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from plexd import __version__
from plexd.console import WRONG_USAGE, Commands, Instead, Parser, put

if TYPE_CHECKING:
    from collections.abc import Sequence

_DATA_DIR = Path("/var/lib/plexd-server")

_ABOUT = "Receives, stores and shows the metrics of a mesh."
_EXAMPLES = """\
examples:
  plexd-server serve                      on 127.0.0.1:8080
  plexd-server token create               lets one machine in (plexd register)
  plexd-server node list                  who is in
  plexd-server secret set berlin-1 token  reads the secret from standard input
"""
_JOIN = "A bootstrap token makes a node of the machine that shows it (plexd register).\n"
_JOIN_CREATE = """\
Prints a new token, which is seen this once: only its hash is kept. By default
one machine can use it, within an hour.
"""
_NODE_CREATE = """\
Registers a node by hand and prints its identity, for a machine that cannot
reach the server to enrol itself.
"""
_REVOKE = """\
The node's token, key and secrets are deleted, it is no peer of others any
more, and within five seconds nothing of it is accepted. Its points stay, and
its id is given to no other machine. A token made with `token create --node`
lets it in again.
"""
_ROTATE = """\
Prints the node's identity with a new token, to take the place of the node's
identity.json; a running agent takes it up by itself. The old token works on
for a while.
"""
_KEEP = """\
Reads the secret from standard input or a file, never from the command line,
and keeps it sealed. The node fetches it by its name.
"""
_INGEST = """\
Opens POST /ingest/NODE for a node of another control plane, which this server
is the local endpoint of. Prints a token; hand it to the control plane:
  plexd-server secret set NODE NAME
"""
_PRUNE = """\
Deletes nodes revoked, and tokens expired or used up, longer ago than that. The
ids of the nodes are given to no other machine, as their points stay; a token
made with `token create --node` lets the same machine in again.
"""
_BACKUP = """\
Copies everything to a new directory and reads it back, also while a server
runs: what nodes report meanwhile waits. Keep the copy as safe as the master
key, which is in it.
"""
_NOT_LISTEN = ("--port", "--host", "--bind", "--address")
_LISTEN_INSTEAD = "use --listen HOST:PORT to say where to listen, such as --listen 0.0.0.0:8080"
_SIMULATE = """\
Registers nodes whose names begin with sim- and reports for them through the
public API, bad links included: to see what the pages look like, or to load a
server. They are registered in --data-dir, or enrolled with a bootstrap token.
Ctrl-C ends it; `node revoke` lets go of the nodes.
"""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command and its options. Exits for help, version and wrong usage.

    ``command`` is ``"serve"``, ``"node list"`` and so on.
    """
    options = _grammar().parse_args(argv)
    if options.command is None:
        put(options.parser.format_help())
        raise SystemExit(WRONG_USAGE)
    return options


def _grammar() -> Parser:
    parser = Parser(prog="plexd-server", description=_ABOUT, epilog=_EXAMPLES)
    version, about = f"plexd-server {__version__}", "show the version and exit"
    parser.add_argument("--version", action="version", version=version, help=about)
    commands = _sub(parser)
    _add_serve(_add(commands, "serve", "run the server"))
    _add_token(_group(commands, "token", "let machines in", _JOIN))
    _add_node(_group(commands, "node", "look after the registered nodes"))
    _add_secret(_group(commands, "secret", "keep secrets for nodes"))
    _add_ingest(_group(commands, "ingest-token", "be the local endpoint of a node", _INGEST))
    prune = _add(commands, "prune", "forget what is long over", _PRUNE)
    prune.add_argument("--older-than", default="30d", metavar="DURATION", help="default 30d")
    _add_json(prune)
    backup = _add(commands, "backup", "copy everything", _BACKUP)
    backup.add_argument("directory", type=Path, metavar="DIR", help="is made; must not exist")
    backup.add_argument("--registry-only", action="store_true", help="all but the points")
    _add_simulate(_add(commands, "simulate", "report for a mesh that does not exist", _SIMULATE))
    return parser


def _sub(parser: Parser) -> Commands[Parser]:
    parser.set_defaults(command=None, parser=parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _group(commands: Commands[Parser], name: str, about: str, more: str = "") -> Commands[Parser]:
    return _sub(commands.add_parser(name, help=about, description=more or f"{about.capitalize()}."))


def _add(commands: Commands[Parser], name: str, about: str, more: str = "") -> Parser:
    parser = commands.add_parser(name, help=about, description=more or f"{about.capitalize()}.")
    parser.set_defaults(command=parser.prog.removeprefix("plexd-server "))
    parser.add_argument(
        "--data-dir", type=Path, default=_DATA_DIR, metavar="DIR", help="default %(default)s"
    )
    return parser


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_serve(parser: Parser) -> None:
    add = parser.add_argument
    add(
        "--listen",
        default="127.0.0.1:8080",
        metavar="ADDRESS",
        help="HOST:PORT, [::]:PORT for both families, or unix:/PATH; default %(default)s",
    )
    add(*_NOT_LISTEN, nargs="?", action=Instead, const=_LISTEN_INSTEAD, help=argparse.SUPPRESS)
    add("--base-path", default="", metavar="PATH", help="be below this path, such as /plexd")
    add(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this name too; loopback names and the one listened on always work",
    )
    add(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="NETWORK",
        help="believe proxies of this network (or unix) whom they forward for; repeatable",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this chain (PEM)")
    add("--tls-key", type=Path, metavar="FILE", help="and its key; both are read anew on change")
    add(
        "--mesh-network",
        metavar="NETWORK",
        help="give nodes without an address one of this, such as 10.99.0.0/16; remembered",
    )
    add(
        "--operator-token-file",
        type=Path,
        metavar="FILE",
        help="read the login token from here instead of making one at every start",
    )
    add(
        "--node-rate",
        type=_number,
        default=50.0,
        metavar="N",
        help="requests a second a node may make, for long; 0 for any number; default 50",
    )
    add(
        "--foreign-peers",
        type=int,
        default=1024,
        metavar="N",
        help="show so many peers of each node that are no nodes here; default %(default)s",
    )
    add("--retention", default="365d", metavar="DURATION", help="keep points for; default 365d")
    add(
        "--retention-rollups",
        metavar="DURATION",
        help="keep their rollups of 5 minutes and an hour for; default 5y",
    )
    add("--store-memory", default="256MB", metavar="SIZE", help="default %(default)s")
    add("--log-format", choices=("logfmt", "json"), default="logfmt", help="default %(default)s")


def _add_token(commands: Commands[Parser]) -> None:
    create = _add(commands, "create", "print a new token", _JOIN_CREATE)
    create.add_argument("--uses", type=_whole, default=1, metavar="N", help="how many machines")
    create.add_argument("--expires", default="1h", metavar="DURATION", help="default 1h")
    create.add_argument(
        "--node", default="", metavar="NODE", help="for this node only, known or new"
    )
    _add_json(create)
    _add_json(_add(commands, "list", "list the tokens"))
    revoke = _add(commands, "revoke", "withdraw a token")
    revoke.add_argument("token_id", metavar="TOKEN_ID", help="as `token list` shows it")


def _add_node(commands: Commands[Parser]) -> None:
    create = _add(commands, "create", "register a node by hand", _NODE_CREATE)
    create.add_argument("node_id", metavar="NODE")
    create.add_argument("--mesh-ip", default="", metavar="ADDRESS")
    create.add_argument("--public-key", default="", metavar="KEY", help="as `wg` prints it")
    _add_output(create)
    nodes = _add(commands, "list", "list the registered nodes")
    nodes.add_argument("--all", action="store_true", help="those that were revoked as well")
    _add_json(nodes)
    show = _add(commands, "show", "show one node")
    show.add_argument("node_id", metavar="NODE")
    _add_json(show)
    revoke = _add(commands, "revoke", "let a node in no more", _REVOKE)
    revoke.add_argument("node_id", metavar="NODE")
    rotate = _add(commands, "rotate", "give a node a new token", _ROTATE)
    rotate.add_argument("node_id", metavar="NODE")
    rotate.add_argument(
        "--keep-old", default="1d", metavar="DURATION", help="the old one works on; default 1d"
    )
    rotate.add_argument("--new-key", action="store_true", help="a new node secret key as well")
    _add_output(rotate)


def _add_output(parser: Parser) -> None:
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it here (0600) instead")


def _add_secret(commands: Commands[Parser]) -> None:
    put_in = _add(commands, "set", "keep a secret for a node", _KEEP)
    put_in.add_argument("node_id", metavar="NODE")
    put_in.add_argument("name", metavar="NAME")
    put_in.add_argument("--value-file", type=Path, metavar="FILE", help="read it from here")
    secrets = _add(commands, "list", "list secrets, not what they hold")
    secrets.add_argument("node_id", nargs="?", default="", metavar="NODE", help="default: all")
    _add_json(secrets)
    delete = _add(commands, "delete", "forget a secret")
    delete.add_argument("node_id", metavar="NODE")
    delete.add_argument("name", metavar="NAME")


def _add_ingest(commands: Commands[Parser]) -> None:
    create = _add(commands, "create", "print a new token for /ingest/NODE", _INGEST)
    create.add_argument("node_id", metavar="NODE", help="its id at its control plane")
    create.add_argument(
        "--value-file", type=Path, metavar="FILE", help="take the token from here instead"
    )
    revoke = _add(commands, "revoke", "withdraw the tokens for /ingest/NODE")
    revoke.add_argument("node_id", metavar="NODE")


def _add_simulate(parser: Parser) -> None:
    add = parser.add_argument
    add("--server", default="http://127.0.0.1:8080", metavar="URL", help="default %(default)s")
    add("--nodes", type=_whole, default=12, metavar="N", help="default %(default)s")
    add("--peers", type=_whole, default=11, metavar="N", help="of each node; default %(default)s")
    add(
        "--rate",
        type=_number,
        metavar="N",
        help="points a second of all nodes; default: every node is read each 15 s",
    )
    add("--past", default="0", metavar="DURATION", help="tell so much of the past first")
    add("--for", dest="run_for", metavar="DURATION", help="end so long after the past is told")
    add("--token-file", type=Path, metavar="FILE", help="enrol with the token in it")
    add("--connections", type=_whole, default=16, metavar="N", help="default %(default)s")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}") from None
