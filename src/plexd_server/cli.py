"""The ``plexd-server`` command. Only what a command needs is imported."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plexd_server.terminal import guard_descriptors, put

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from plexd.api import Registration
    from plexd_server.http import Address
    from plexd_server.registry import Registry

__all__ = ["main"]

_DATA_DIR = Path("/var/lib/plexd-server")
_MAX_PORT = 65_535


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 if it could not be done, 2 if it was asked wrongly."""
    guard_descriptors()
    arguments = _parser().parse_args(argv)
    if arguments.command == "serve":
        return _serve(arguments)
    return _node(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plexd-server", description="Receives, stores and shows the metrics of a mesh."
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="run the server"))
    node = commands.add_parser("node", help="register and list nodes")
    _add_node(node.add_subparsers(dest="node_command", required=True, metavar="COMMAND"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="default %(default)s")
    _add_data_dir(parser)
    add(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this name too; loopback names and the one listened on always work",
    )
    add(
        "--operator-token-file",
        type=Path,
        metavar="FILE",
        help="read the login token from here instead of making one at every start",
    )
    add("--store-memory", default="256MB", metavar="SIZE", help="default %(default)s")
    add("--log-format", choices=("logfmt", "json"), default="logfmt", help="default %(default)s")


def _add_node(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = commands.add_parser("create", help="register a node and print its identity as JSON")
    create.add_argument("node_id", metavar="NODE_ID")
    create.add_argument("--mesh-ip", default="", metavar="ADDRESS")
    create.add_argument("--output", type=Path, metavar="FILE", help="write it here (0600) instead")
    _add_data_dir(create)
    _add_data_dir(commands.add_parser("list", help="list the registered nodes"))


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", type=Path, default=_DATA_DIR, metavar="DIR", help="default %(default)s"
    )


class _Version(argparse.Action):
    """``--version``, reading the version only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from plexd import __version__  # noqa: PLC0415 -- only what a command needs

        put(f"plexd-server {__version__}\n")
        parser.exit()


def _serve(arguments: argparse.Namespace) -> int:
    import signal  # noqa: PLC0415 -- only what a command needs

    # Until the event loop listens for signals itself, stopping is just leaving.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    import asyncio  # noqa: PLC0415 -- as above: importing takes a while, signals count from here on

    from plexd_server.app import ServeOptions, serve  # noqa: PLC0415
    from plexd_server.errors import ServerError  # noqa: PLC0415
    from plexd_server.logs import configure_logging  # noqa: PLC0415

    os.umask(0o077)  # points, their log and what spills to disk are their owner's
    configure_logging(arguments.log_format)
    try:
        options = ServeOptions(
            listen=_address(arguments.listen),
            data_dir=arguments.data_dir,
            allowed_hosts=tuple(arguments.allowed_host),
            operator_token_file=arguments.operator_token_file,
            store_memory=_memory(arguments.store_memory),
        )
        asyncio.run(serve(options))
    except ValueError as err:
        return _fail(str(err), status=2)
    except ServerError as err:
        return _fail(str(err))
    return 0


def _node(arguments: argparse.Namespace) -> int:
    from plexd.clock import SystemClock  # noqa: PLC0415 -- only what a command needs
    from plexd_server.data_dir import open_registry  # noqa: PLC0415 -- the same
    from plexd_server.errors import ServerError  # noqa: PLC0415 -- the same

    try:
        if arguments.node_command == "create":
            arguments.mesh_ip = _mesh_ip(arguments.mesh_ip)
        with closing(open_registry(arguments.data_dir, SystemClock())) as registry:
            if arguments.node_command == "create":
                _create(registry, arguments)
            else:
                _list(registry)
    except ValueError as err:
        return _fail(str(err), status=2)
    except ServerError as err:
        return _fail(str(err))
    except OSError as err:
        return _fail(f"cannot write {arguments.output}: {err.strerror}")
    return 0


def _create(registry: Registry, arguments: argparse.Namespace) -> None:
    """Register a node. The file comes first: a node whose secrets went nowhere is of no use."""
    if arguments.output is None:
        node = registry.create_node(arguments.node_id, mesh_ip=arguments.mesh_ip)
        with _undone_on_failure(registry, node):
            put(_identity(node))
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(arguments.output, flags, 0o600), "w") as out:  # noqa: PTH123 -- 0600 from birth
        try:
            node = registry.create_node(arguments.node_id, mesh_ip=arguments.mesh_ip)
            with _undone_on_failure(registry, node):
                print(_identity(node), end="", file=out, flush=True)
                os.fsync(out.fileno())
        except BaseException:
            arguments.output.unlink()
            raise


@contextmanager
def _undone_on_failure(registry: Registry, node: Registration) -> Iterator[None]:
    """Forget the node if its identity could not be handed out."""
    try:
        yield
    except BaseException:
        registry.remove_node(node.node_id)
        raise


def _list(registry: Registry) -> None:
    for node in registry.nodes():
        created = node.created_at.isoformat(timespec="seconds").replace("+00:00", "Z")
        put(f"{node.node_id}\t{node.mesh_ip or '-'}\t{created}\n")


def _identity(registration: Registration) -> str:
    """The agent's identity file: the members of a registration."""
    import msgspec  # noqa: PLC0415 -- only what a command needs

    return f"{msgspec.json.encode(registration).decode()}\n"


def _mesh_ip(text: str) -> str:
    """An address in its usual form; empty for none."""
    import ipaddress  # noqa: PLC0415 -- only what a command needs

    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise ValueError(f"--mesh-ip {text!r} is no IP address, such as 10.42.0.7") from None


def _memory(text: str) -> str:
    """A size as DuckDB takes it, in bytes of a thousand or of 1,024."""
    if not re.fullmatch(r"\d+(\.\d+)? ?[KMGT]i?B", text, re.IGNORECASE | re.ASCII):
        raise ValueError(f"--store-memory {text!r} is no size, such as 256MB")
    return text


def _address(text: str) -> Address:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``."""
    from plexd_server.http import Address  # noqa: PLC0415 -- only what a command needs

    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(f"--listen {text!r} is not HOST:PORT, such as 127.0.0.1:8080")
    return Address(host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port))  # noqa: S104 -- asked for


def _fail(reason: str, *, status: int = 1) -> int:
    with suppress(OSError):
        print(f"plexd-server: {reason}", file=sys.stderr, flush=True)  # noqa: T201 -- the program's output
    return status
