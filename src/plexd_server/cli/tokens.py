"""``plexd-server token``: bootstrap tokens, which let machines in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd.console import note, put_whole
from plexd_server.cli.options import parse_duration
from plexd_server.cli.output import as_cell, print_json, print_table

if TYPE_CHECKING:
    import argparse

    from plexd_server.cli.registry_commands import Opening


def create(options: argparse.Namespace, opening: Opening) -> None:
    """Make a token and print it, alone, to standard output."""
    expires_in = parse_duration("--expires", options.expires)
    with opening as registry:
        token, made = registry.tokens.create(
            uses=options.uses, expires_in=expires_in, node_id=options.node
        )
        if options.json:
            print_json({"token": token, **asdict(made)})
            return
        put_whole(f"{token}\n")
        times = "once" if made.uses_left == 1 else f"{made.uses_left} times"
        whom = f" by {made.node_id}" if made.node_id else ""
        note(f"can be used {times}{whom} until {as_cell(made.expires_at)}: plexd register")


def show_all(options: argparse.Namespace, opening: Opening) -> None:
    """List all tokens without their texts."""
    with opening as registry:
        tokens, now = registry.tokens.list(), SystemClock().now()
        if options.json:
            print_json({"tokens": [{**asdict(t), "state": t.state(now)} for t in tokens]})
            return
        header = ("TOKEN_ID", "STATE", "USES LEFT", "EXPIRES", "FOR NODE")
        rows = ((t.token_id, t.state(now), t.uses_left, t.expires_at, t.node_id) for t in tokens)
        none = "there are no tokens; make one with: plexd-server token create"
        print_table(header, rows, none=none)


def revoke(options: argparse.Namespace, opening: Opening) -> None:
    """Revoke a token."""
    with opening as registry:
        registry.tokens.revoke(options.token_id)
        note(f"token {options.token_id} is withdrawn")
