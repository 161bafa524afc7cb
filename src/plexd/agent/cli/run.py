"""``plexd run``: measure and report until stopped."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from plexd.agent.config.checks import check_for_run, warnings_about
from plexd.agent.data_dir import check_data_dir, why_not_writable
from plexd.agent.errors import NotReadyError
from plexd.agent.identity import FILE_NAME, read_identity
from plexd.agent.node_token import token_reader, with_token
from plexd.logs import setup_logging

if TYPE_CHECKING:
    from plexd.agent.config.settings import Settings


def run(settings: Settings, identity_file: str | None) -> int:
    """Run the agent until a signal. Raises `SettingsError` or `NotReadyError` before it starts."""
    check_for_run(settings, has_identity=identity_file is not None)
    setup_logging(settings.log.level, settings.log.format)
    _log_warnings(settings)
    path = Path(identity_file) if identity_file is not None else _data_dir(settings) / FILE_NAME
    identity = with_token(read_identity(path), settings)
    from plexd.agent import app  # noqa: PLC0415 - loads every part, after all that may fail
    from plexd.agent.signals import until_stopped  # noqa: PLC0415 - the same

    read_token = token_reader(settings, identity.node_id, path)
    asyncio.run(until_stopped(app.run(settings, identity, read_token)))
    return 0


def _log_warnings(settings: Settings) -> None:
    logger = logging.getLogger("plexd.agent")
    for warning in warnings_about(settings, os.environ):
        logger.warning("%s", warning, extra={"component": "config"})


def _data_dir(settings: Settings) -> Path:
    path = settings.data_dir
    assert path is not None  # check_for_run refuses that
    check_data_dir(path)
    if reason := why_not_writable(path):
        raise NotReadyError(reason)
    return path
