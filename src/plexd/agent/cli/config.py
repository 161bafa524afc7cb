"""``plexd config check`` and ``plexd config show``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plexd.agent.config import settings as config
from plexd.agent.config.checks import warnings_about, warnings_about_machine
from plexd.agent.config.show import show_settings
from plexd.console import complain, put
from plexd.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.agent.config.settings import Settings


def check(path: Path | None) -> int:
    """Say whether the file at ``path`` and the environment are right. Raises `SettingsError`."""
    settings = config.load_settings(path, os.environ)
    if path is None:
        put(f"no {config.DEFAULT_PATH}: environment and defaults are ok\n")
    else:
        put(f"{printable(str(path))}: ok\n")
    for warning in (*warnings_about(settings, os.environ), *warnings_about_machine(settings)):
        complain("plexd", f"warning: {warning}")
    return 0


def show(settings: Settings) -> int:
    """Print the settings in effect."""
    put(show_settings(settings))
    return 0
