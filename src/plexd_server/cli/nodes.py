"""``plexd-server node``: the nodes of the mesh."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec.structs import asdict

from plexd.console import OutputError, note, put, put_whole
from plexd.durable import create_private
from plexd_server.cli.options import parse_duration, parse_mesh_ip
from plexd_server.cli.output import as_cell, print_json, print_table
from plexd_server.errors import UnknownNode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from plexd.api import Registration
    from plexd_server.cli.registry_commands import Opening
    from plexd_server.registry import Node


def create(options: argparse.Namespace, opening: Opening) -> None:
    """Register a node and hand out its identity."""
    mesh_ip = parse_mesh_ip(options.mesh_ip)
    with opening as registry, _identity_file(options.output) as out:
        made = registry.create_node(options.node_id, mesh_ip=mesh_ip, public_key=options.public_key)
        try:
            _print_identity(made, out)
        except BaseException:  # nobody has the identity
            registry.remove_node(made.node_id)
            raise


def show_all(options: argparse.Namespace, opening: Opening) -> None:
    """List all nodes, one a line."""
    with opening as registry:
        nodes = registry.nodes(revoked=options.all)
        if options.json:
            print_json({"nodes": [asdict(node) for node in nodes]})
            return
        header = ("NODE", "MESH ADDRESS", "STATE", "SINCE", "HOSTNAME")
        rows = ((n.node_id, n.mesh_ip, *_state(n), n.hostname) for n in nodes)
        none = "there are no nodes; let one in with: plexd-server token create"
        print_table(header, rows, none=none)


def _state(node: Node) -> tuple[str, object]:
    """Return the state of a node and since when it is in it."""
    if node.revoked_at is not None:
        return "revoked", node.revoked_at
    if node.enrolled_at is not None:
        return "enrolled", node.enrolled_at
    return "created", node.created_at


def show(options: argparse.Namespace, opening: Opening) -> None:
    """Show all that is known of a node except its secrets."""
    with opening as registry:
        node = registry.node(options.node_id)
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


def revoke(options: argparse.Namespace, opening: Opening) -> None:
    """Shut a node out."""
    with opening as registry:
        registry.revoke_node(options.node_id)
        note(
            f"node {options.node_id} is revoked and its secrets are forgotten; its points stay, "
            f"and so does its id: {_let_in_again(options.node_id)}"
        )


def _let_in_again(node_id: str) -> str:
    return f"let it in again with: plexd-server token create --node {node_id}"


def rotate(options: argparse.Namespace, opening: Opening) -> None:
    """Give a node a new token."""
    keep_old = parse_duration("--keep-old", options.keep_old)
    with opening as registry, _identity_file(options.output) as out:
        made = registry.rotate_node(options.node_id, keep_old=keep_old, new_key=options.new_key)
        _print_identity(made, out)


def _print_identity(identity: Registration, out: BinaryIO | None) -> None:
    """Write the agent's identity file. Raises `OutputError` unless all of it is written."""
    text = f"{msgspec.json.encode(identity).decode()}\n"
    if out is None:
        put_whole(text)
        return
    try:
        out.write(text.encode())
        out.flush()
        os.fsync(out.fileno())
    except OSError as err:
        raise OutputError(f"cannot write the identity: {err.strerror}") from err


@contextmanager
def _identity_file(path: Path | None) -> Iterator[BinaryIO | None]:
    """Make a new file (0600) and delete it if the body raises; None without a path.

    The file comes before its content: secrets that cannot be handed out are of no use.
    """
    if path is None:
        yield None
        return
    try:
        out = create_private(path)
    except OSError as err:
        raise OutputError(f"cannot write {path}: {err.strerror}") from err
    with out:
        try:
            yield out
        except BaseException:
            path.unlink(missing_ok=True)
            raise
