"""``plexd-server node``: who is in the mesh."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from plexd.console import note, put
from plexd_server.cli.options import parse_duration, parse_mesh_ip
from plexd_server.cli.output import (
    as_cell,
    identity_file,
    print_identity,
    print_json,
    print_table,
)
from plexd_server.errors import UnknownNode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from plexd.api import Registration
    from plexd_server.registry import Node, Registry

__all__ = ["create", "revoke", "rotate", "show", "show_all"]


def create(options: argparse.Namespace) -> Callable[[Registry], None]:
    """Register a node. The file comes first: a node whose secrets went nowhere is of no use."""
    mesh_ip = parse_mesh_ip(options.mesh_ip)

    def command(registry: Registry) -> None:
        with identity_file(options.output) as out:
            made = registry.create_node(
                options.node_id, mesh_ip=mesh_ip, public_key=options.public_key
            )
            with _undone_on_failure(registry, made):
                print_identity(made, out)

    return command


@contextmanager
def _undone_on_failure(registry: Registry, made: Registration) -> Iterator[None]:
    """Forget the node if its identity could not be handed out."""
    try:
        yield
    except BaseException:
        registry.remove_node(made.node_id)
        raise


def show_all(options: argparse.Namespace) -> Callable[[Registry], None]:
    """All nodes, one a line."""

    def command(registry: Registry) -> None:
        nodes = registry.nodes(revoked=options.all)
        if options.json:
            print_json({"nodes": [asdict(node) for node in nodes]})
            return
        header = ("NODE", "MESH ADDRESS", "STATE", "SINCE", "HOSTNAME")
        print_table(header, ((n.node_id, n.mesh_ip, *_state(n), n.hostname) for n in nodes))
        if not nodes:
            note("there are no nodes; let one in with: plexd-server token create")

    return command


def _state(node: Node) -> tuple[str, object]:
    """In what state a node is, and since when."""
    if node.revoked_at is not None:
        return "revoked", node.revoked_at
    if node.enrolled_at is not None:
        return "enrolled", node.enrolled_at
    return "created", node.created_at


def show(options: argparse.Namespace) -> Callable[[Registry], None]:
    """All that is known of a node, but for its secrets."""

    def command(registry: Registry) -> None:
        node = next((n for n in registry.nodes(revoked=True) if n.node_id == options.node_id), None)
        if node is None:
            raise UnknownNode(f"there is no node {options.node_id!r}")
        tokens: list[dict[str, object]] = [
            {"purpose": purpose, "created_at": created, "expires_at": expires}
            for purpose, created, expires in registry.tokens_of(node.node_id)
        ]
        names = [secret.name for secret in registry.secrets.list(node.node_id)]
        if options.json:
            print_json({**asdict(node), "tokens": tokens, "secrets": names})
        else:
            _print(node, tokens, names)

    return command


def _print(node: Node, tokens: list[dict[str, object]], names: list[str]) -> None:
    state, since = _state(node)
    lines: list[tuple[str, object]] = [
        ("node", node.node_id),
        ("state", f"{state} since {as_cell(since)}"),
        ("mesh address", node.mesh_ip),
        ("public key", node.public_key),
        ("hostname", node.hostname),
        ("secret key", "sealed" if node.has_key else "none kept: node rotate makes one"),
        *((f"metadata {key}", value) for key, value in sorted((node.metadata or {}).items())),
        *(("token", _validity(token)) for token in tokens),
        *(("secret", name) for name in names),
    ]
    width = max(len(name) for name, _ in lines)
    put("".join(f"{as_cell(name).ljust(width)}  {as_cell(value)}\n" for name, value in lines))


def _validity(token: dict[str, object]) -> str:
    end = f", until {as_cell(token['expires_at'])}" if token["expires_at"] else ""
    what = "for /ingest" if token["purpose"] == "ingest" else "for all of its paths"
    return f"{what}, since {as_cell(token['created_at'])}{end}"


def revoke(options: argparse.Namespace) -> Callable[[Registry], None]:
    """Let a node in no more."""

    def command(registry: Registry) -> None:
        registry.revoke_node(options.node_id)
        note(f"node {options.node_id} is revoked and its secrets are forgotten; its points stay")

    return command


def rotate(options: argparse.Namespace) -> Callable[[Registry], None]:
    """Give a node a new token."""
    keep_old = parse_duration("--keep-old", options.keep_old)

    def command(registry: Registry) -> None:
        with identity_file(options.output) as out:
            made = registry.rotate_node(options.node_id, keep_old=keep_old, new_key=options.new_key)
            print_identity(made, out)

    return command
