"""What each command does. Loaded once the command is known; heavy parts only where needed."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.agent.config import settings as config
from plexd.agent.config.checks import check_for_run, warnings_about
from plexd.agent.errors import IdentityError, NotReadyError, SettingsError
from plexd.console import complain, put
from plexd.logs import setup_logging
from plexd.text import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from plexd.agent.config.settings import Settings
    from plexd.agent.identity import Identity

__all__ = ["COMMANDS"]


def _run(options: argparse.Namespace) -> int:
    from plexd.agent.signals import until_stopped  # noqa: PLC0415 - needed by this command only

    settings = _settings(options)
    check_for_run(settings, has_identity=options.identity is not None)
    setup_logging(settings.log.level, settings.log.format)
    _log_warnings(settings)
    from plexd.agent.identity import read_identity  # noqa: PLC0415 - see above

    identity_file = _identity_file(options, settings)
    identity = read_identity(identity_file)
    from plexd.agent import app  # noqa: PLC0415 - loads every part, after all that may fail
    from plexd.agent.node_token import token_reader  # noqa: PLC0415 - see above

    read_token = token_reader(settings, identity.node_id, identity_file)
    asyncio.run(until_stopped(app.run(settings, identity, read_token)))
    return 0


def _identity_file(options: argparse.Namespace, settings: Settings) -> Path:
    from plexd.agent.identity import FILE_NAME  # noqa: PLC0415 - see above

    if options.identity is not None:
        return Path(options.identity)
    return _usable_data_dir(settings) / FILE_NAME


def _collect(options: argparse.Namespace) -> int:
    from plexd.agent import app  # noqa: PLC0415 - loads every part
    from plexd.agent.cli.collect import collected_table  # noqa: PLC0415 - needed by this command only
    from plexd.api import MetricBatch  # noqa: PLC0415 - same

    settings = _settings(options)
    # What failed is part of the result; the log would only say it twice.
    level = "debug" if settings.log.level == "debug" else "error"
    setup_logging(level, settings.log.format)
    report = asyncio.run(app.collect_once(settings, _identity_if_any(settings)))
    failures = [(group, why.removeprefix(f"metrics: {group}: ")) for group, why in report.failures]
    if options.json:
        put(MetricBatch(report.points).to_json() + b"\n")
        for remark in (*(f"{group}: {reason}" for group, reason in failures), *report.unanswered):
            complain("plexd", remark)
    else:
        table = (report.points, failures, report.elapsed, report.addresses, report.unanswered)
        put(collected_table(*table))
    if not report.points:
        complain("plexd", "nothing could be collected")
    return 0 if report.points else 1


def _identity_if_any(settings: Settings) -> Identity | None:
    """Of a node, for whoever may read it: without one, peers have no names."""
    from plexd.agent.identity import load_identity  # noqa: PLC0415 - see _run

    if settings.data_dir is None:
        return None
    try:
        return load_identity(settings.data_dir)
    except IdentityError:
        return None


def _config_check(options: argparse.Namespace) -> int:
    from plexd.agent.config.presence import warnings_about_machine  # noqa: PLC0415 - this command only

    path = _chosen_path(options)
    settings = config.load_settings(path, os.environ)
    if path is None:
        put(f"no {config.DEFAULT_PATH}: environment and defaults are ok\n")
    else:
        put(f"{printable(str(path))}: ok\n")
    for warning in (*warnings_about(settings, os.environ), *warnings_about_machine(settings)):
        complain("plexd", f"warning: {warning}")
    return 0


def _config_show(options: argparse.Namespace) -> int:
    from plexd.agent.config.show import show_settings  # noqa: PLC0415 - needed by this command only

    put(show_settings(_settings(options)))
    return 0


def _register(options: argparse.Namespace) -> int:
    from plexd.agent.cli.register import register  # noqa: PLC0415 - needed by this command only

    register(options, _settings(options), os.environ)
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


def _log_warnings(settings: Settings) -> None:
    logger = logging.getLogger("plexd.agent")
    for warning in warnings_about(settings, os.environ):
        logger.warning("%s", warning, extra={"component": "config"})


def _usable_data_dir(settings: Settings) -> Path:
    path = settings.data_dir
    if path is None:
        raise SettingsError("", "data_dir", "is empty")
    if not path.is_dir():
        raise NotReadyError(
            f"data_dir {path} is no directory; create it for the user plexd runs as, mode 0700"
        )
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise NotReadyError(
            f"data_dir {path} cannot be written to; give it to the user plexd runs as, "
            "or check whether it is mounted read-only"
        )
    return path


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "collect": _collect,
    "register": _register,
    "config check": _config_check,
    "config show": _config_show,
    "demo": _demo,
}
