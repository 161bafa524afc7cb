"""``plexd-server token``, ``secret`` and ``ingest-token``: what machines and nodes are given."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from plexd.clock import SystemClock
from plexd.console import note, put_whole
from plexd.text import printable
from plexd_server.cli.options import parse_duration
from plexd_server.cli.output import as_cell, print_json, print_table
from plexd_server.errors import StartError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from plexd_server.cli.registry_commands import Opening

_MAX_BYTES: Final = 64 * 1024
_LEAST_TOKEN: Final = 16


def create_token(options: argparse.Namespace, opening: Opening) -> None:
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


def list_tokens(options: argparse.Namespace, opening: Opening) -> None:
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


def revoke_token(options: argparse.Namespace, opening: Opening) -> None:
    """Revoke a token."""
    with opening as registry:
        registry.tokens.revoke(options.token_id)
        note(f"token {options.token_id} is withdrawn")


def keep_secret(options: argparse.Namespace, opening: Opening) -> None:
    """Keep a secret, sealed."""
    with opening as registry:
        registry.secrets.refuse(options.node_id, options.name)
        value = _value(options.value_file, f"secret {options.name} of {options.node_id}: ")
        version = registry.secrets.set(options.node_id, options.name, value)
        note(f"secret {options.name} of {options.node_id} is set, version {version}")


def list_secrets(options: argparse.Namespace, opening: Opening) -> None:
    """List secrets without their values."""
    with opening as registry:
        found = registry.secrets.list(options.node_id)
        if options.json:
            print_json({"secrets": [asdict(secret) for secret in found]})
            return
        rows = ((s.node_id, s.name, s.version, s.set_at) for s in found)
        none = "there are no secrets; keep one with: plexd-server secret set NODE NAME"
        print_table(("NODE", "NAME", "VERSION", "SET"), rows, none=none)


def delete_secret(options: argparse.Namespace, opening: Opening) -> None:
    """Delete a secret."""
    with opening as registry:
        registry.secrets.delete(options.node_id, options.name)
        note(f"secret {options.name} of {options.node_id} is forgotten")


def create_ingest_token(options: argparse.Namespace, opening: Opening) -> None:
    """Accept a token for ``/ingest/NODE``: a new one, which is printed, or one from a file."""
    given = None if options.value_file is None else _token(_value(options.value_file, ""))
    with opening as registry:
        token = registry.create_ingest_token(options.node_id, given)
        if given is None:
            put_whole(f"{token}\n")


def revoke_ingest_tokens(options: argparse.Namespace, opening: Opening) -> None:
    """Delete the tokens of ``/ingest/NODE``."""
    with opening as registry:
        number = registry.revoke_ingest_tokens(options.node_id)
        note(f"{number} tokens of /ingest/{options.node_id} withdrawn")


def _value(path: Path | None, prompt: str) -> str:
    """Read the file or standard input, without the line end that editors add."""
    if path is None and sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 -- at a terminal only

        return getpass(printable(prompt))
    try:
        with open(path or 0, "rb", closefd=path is not None) as source:
            text = source.read(_MAX_BYTES + 1).decode()
    except OSError as err:
        raise StartError(f"cannot read {path or 'standard input'}: {err.strerror}") from err
    except UnicodeDecodeError:
        raise StartError(f"{path or 'standard input'} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise StartError(f"there is nothing in {path or 'standard input'}")
    return text


def _token(text: str) -> str:
    if len(text) < _LEAST_TOKEN or not (text.isascii() and text.isprintable()) or " " in text:
        raise StartError(
            f"a token has at least {_LEAST_TOKEN} printable ASCII characters without spaces"
        )
    return text
