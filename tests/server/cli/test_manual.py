"""The manual says what ``plexd-server`` does: every command, every option, and no others."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.console import Commands, Parser
from plexd_server.cli import arguments
from plexd_server.cli.registry_commands import _COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[3] / "docs"
MANUAL = (DOCS / "reference" / "commands.md").read_text().partition("# `plexd-server`")[2]


def leaves() -> Iterator[Parser]:
    waiting = [arguments._grammar()]
    while waiting:
        parser = waiting.pop()
        groups = [a for a in parser._actions if isinstance(a, Commands)]
        waiting += [made for group in groups for made in group.choices.values()]
        if not groups:
            yield parser


def test_every_command_and_option_is_in_the_manual() -> None:
    for parser in leaves():
        name = parser.prog.removeprefix("plexd-server ")
        assert f"`{name}" in MANUAL, name
        for action in parser._actions:
            if action.help == argparse.SUPPRESS:
                continue
            for option in action.option_strings:
                assert option in {"-h", "--help"} or f"`{option}" in MANUAL, (name, option)


def test_every_command_of_the_grammar_is_implemented() -> None:
    names = {parser.prog.removeprefix("plexd-server ") for parser in leaves()}

    assert names - {"serve", "simulate"} == _COMMANDS.keys()


def test_the_commands_in_the_how_tos_exist() -> None:
    known, found = {parser.prog for parser in leaves()}, 0
    for page in sorted((DOCS / "how-to").glob("*.md")):
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            for words in re.findall(r"plexd-server ([a-z][a-z-]*)(?: ([a-z]+))?(?![\w./-])", block):
                names = {f"plexd-server {words[0]}", f"plexd-server {' '.join(words)}"}
                assert names & known, (page.name, words)
                found += 1
    assert found > 3
