"""The commands that work on the registry, beside a running server or without one."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, contextmanager
from typing import TYPE_CHECKING, Final

from plexd.clock import SystemClock
from plexd.console import note, put
from plexd.text import nearest
from plexd_server.cli import credentials, nodes
from plexd_server.cli.options import parse_duration
from plexd_server.cli.output import print_json
from plexd_server.errors import UnknownNode
from plexd_server.registry import Registry, has_registry
from plexd_server.upkeep.data_dir import has_points, open_registry, provide_registry

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

Opening = AbstractContextManager[Registry]


def run(options: argparse.Namespace) -> None:
    """Run a command. Raises `ServerError`, and `ValueError` for wrong options."""
    _COMMANDS[options.command](options, _opening(options))


@contextmanager
def _opening(options: argparse.Namespace) -> Iterator[Registry]:
    is_new = options.command in _BEFORE_THE_FIRST_START and not has_registry(options.data_dir)
    get_registry = provide_registry if is_new else open_registry
    with closing(get_registry(options.data_dir, SystemClock())) as registry:
        try:
            yield registry
        except UnknownNode as err:
            known = [node.node_id for node in registry.nodes(revoked=True)]
            raise UnknownNode(f"{err}{nearest(options.node_id, known)}") from None
    if is_new and has_points(options.data_dir):
        note(
            f"{options.data_dir} has points and had no registry: nobody of before is known in the "
            "new one. If that is not meant, put registry.db and master.key of a backup in its place"
        )
    elif is_new:
        note(f"{options.data_dir} is a new data directory; start the server with it")


def _prune(options: argparse.Namespace, opening: Opening) -> None:
    before = SystemClock().now() - parse_duration("--older-than", options.older_than)
    with opening as registry:
        gone = registry.prune(before)
        if options.json:
            print_json({"before": before, "removed": gone})
        else:
            put("".join(f"{number} {kind} removed\n" for kind, number in gone.items()))
        if gone["nodes"]:
            note(
                "no other machine gets the id of a removed node; let the same one in again with: "
                "plexd-server token create --node NODE"
            )


def _backup(options: argparse.Namespace, opening: Opening) -> None:
    with opening as registry:
        from plexd_server.upkeep.backup import back_up  # noqa: PLC0415 -- loads the store as well

        with_points = not options.registry_only
        back_up(registry, options.data_dir, options.directory, with_points=with_points)
        what = "registry and master key" if options.registry_only else "everything"
        note(f"{what} copied to {options.directory}, and read back")


# These may come before the first start; any other would make a directory of a mistyped name.
_BEFORE_THE_FIRST_START = frozenset({"token create", "node create", "ingest-token create"})

# Each parses its options before it opens the registry, so that a wrong one leaves no trace.
_COMMANDS: Final[dict[str, Callable[[argparse.Namespace, Opening], None]]] = {
    "token create": credentials.create_token,
    "token list": credentials.list_tokens,
    "token revoke": credentials.revoke_token,
    "node create": nodes.create,
    "node list": nodes.show_all,
    "node show": nodes.show,
    "node revoke": nodes.revoke,
    "node rotate": nodes.rotate,
    "secret set": credentials.keep_secret,
    "secret list": credentials.list_secrets,
    "secret delete": credentials.delete_secret,
    "ingest-token create": credentials.create_ingest_token,
    "ingest-token revoke": credentials.revoke_ingest_tokens,
    "prune": _prune,
    "backup": _backup,
}
