"""What each command does. A command's own file is loaded once the command is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.agent.config import settings as config
from plexd.agent.config.checks import warnings_about, warnings_about_machine
from plexd.console import complain, put
from plexd.logs import setup_logging
from plexd.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from plexd.agent.config.settings import Settings


def _run(options: argparse.Namespace) -> int:
    from plexd.agent.cli.run import run  # noqa: PLC0415 - needed by this command only

    return run(_settings(options), options.identity)


def _collect(options: argparse.Namespace) -> int:
    from plexd.agent.cli.collect import collect  # noqa: PLC0415 - needed by this command only

    return collect(_settings(options), as_json=options.json)


def _register(options: argparse.Namespace) -> int:
    from plexd.agent.cli.register import register  # noqa: PLC0415 - needed by this command only

    setup_logging("warning", "sentence")
    register(options, _settings(options), os.environ)
    return 0


def _config_check(options: argparse.Namespace) -> int:
    """Say whether file, environment and identity are right.

    Raises `SettingsError` or `NotReadyError`, as a run does.
    """
    from plexd.agent.rehearsal import rehearse  # noqa: PLC0415 - needed by this command only

    setup_logging("warning", "sentence")
    path = _chosen_path(options)
    settings = config.load_settings(path, os.environ)
    identity_file = Path(options.identity) if options.identity is not None else None
    remarks = list(rehearse(settings, identity_file))
    if path is None:
        put(f"no {config.DEFAULT_PATH}: environment and defaults are ok\n")
    else:
        put(f"{printable(path)}: ok\n")
    remarks += warnings_about(settings, os.environ)
    for warning in (*remarks, *warnings_about_machine(settings)):
        complain("plexd", f"warning: {warning}")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from plexd.agent.config.show import show_settings  # noqa: PLC0415 - needed here only

    put(show_settings(_settings(options)))
    return 0


def _demo(options: argparse.Namespace) -> int:
    from plexd.agent.cli import demo  # noqa: PLC0415 - loads the server as well

    return demo.run(for_seconds=options.for_seconds, listen=options.listen)


def _settings(options: argparse.Namespace) -> Settings:
    return config.load_settings(_chosen_path(options), os.environ)


def _chosen_path(options: argparse.Namespace) -> Path | None:
    """The file that was named, else the default one, else none: defaults are enough to begin."""
    if options.config is not None:
        return Path(options.config)
    try:
        config.DEFAULT_PATH.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:  # it is there, and reading it will say what is wrong
        pass
    return config.DEFAULT_PATH


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "collect": _collect,
    "register": _register,
    "config check": _config_check,
    "config show": _config_show,
    "demo": _demo,
}
