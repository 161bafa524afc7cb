"""The manual says what the program does: keys, defaults, commands, log fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from plexd.agent.cli import arguments
from plexd.agent.cli.commands import COMMANDS
from plexd.agent.config.keys import KEYS, Key, variable
from plexd.agent.config.settings import load_settings
from plexd.console import Commands

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
CONFIGURATION = (REFERENCE / "configuration.md").read_text()


def _row(key: Key) -> str:
    name = key.path.rpartition(".")[2]
    default = f"`{key.default}`" if key.default else "empty"
    return f"| `{name}` | {key.kind.name} | {default} | `{variable(key.path)}` | {key.about} |"


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.path)
def test_the_manual_has_a_row_for_every_key(key: Key) -> None:
    section = key.path.rpartition(".")[0]
    heading = f"### `{section}`" if section else "### At the top"
    under = CONFIGURATION.partition(f"{heading}\n")[2].partition("\n#")[0]
    assert _row(key) in under


def test_the_manual_has_no_row_for_a_key_there_is_not() -> None:
    assert len(re.findall(r"^\| `\w+` \|.*`PLEXD_", CONFIGURATION, re.MULTILINE)) == len(KEYS)


def test_every_example_in_the_manual_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "example.yaml"
        path.write_text(example)
        load_settings(path, {})
        yaml.safe_load(example)


def test_every_command_and_option_is_in_the_manual() -> None:
    manual = (REFERENCE / "commands.md").read_text()
    for command in COMMANDS:
        assert f"## `plexd {command}`" in manual
    waiting = [arguments._grammar()]
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, Commands):
                waiting += action.choices.values()
            assert all(f"`{option}" in manual for option in action.option_strings)
