"""The agent's settings, made of the environment, the file and the defaults.

The environment wins over the file, the file over the defaults. Every value is checked before any
part is built, so that a mistake is one sentence at the start and no failure later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from plexd.agent.config.checks import check_together
from plexd.agent.config.environment import read_environment
from plexd.agent.config.keys import KEYS, PEERS, Given
from plexd.api import Config as APIConfig
from plexd.api import LocalEndpointConfig, Peer
from plexd.metrics.config import Config as MetricsConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


DEFAULT_PATH = Path("/etc/plexd/config.yaml")
_TOKEN_FILE = "api.auth_token_file"  # noqa: S105 - the name of a key


@dataclass(frozen=True, slots=True)
class SystemSettings:
    """What of the machine is measured."""

    mount_point: str = "/"
    net_iface: str = ""


@dataclass(frozen=True, slots=True)
class WireGuardSettings:
    """The mesh's interface, and the age of a handshake from which a tunnel is stale."""

    interface: str = "plexd0"
    stale_after: timedelta = timedelta(seconds=180)


@dataclass(frozen=True, slots=True)
class PingSettings:
    """How long a peer may take to answer, and how far back lost pings count."""

    timeout: timedelta = timedelta(seconds=2)
    loss_window: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How many undelivered points are kept, in bytes, and for how long."""

    max_bytes: int = 256 * 2**20
    max_age: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and in which form: ``logfmt`` or ``json``."""

    level: str = "info"
    format: str = "logfmt"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the agent, section by section as in the configuration file.

    ``data_dir`` None keeps points in memory only; ``auth_token_file`` is a key of ``api``, whose
    client knows tokens only; no ``peers`` means that the control plane is asked. ``path`` is the
    file that was read; ``origins`` has the place (``FILE:LINE`` or a variable) of each key that was
    set. Settings are compared without the two.
    """

    data_dir: Path | None = Path("/var/lib/plexd")
    api: APIConfig = field(default_factory=lambda: APIConfig(base_url=""))
    auth_token_file: Path | None = None
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    system: SystemSettings = field(default_factory=SystemSettings)
    wireguard: WireGuardSettings = field(default_factory=WireGuardSettings)
    ping: PingSettings = field(default_factory=PingSettings)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    peers: tuple[Peer, ...] = ()
    log: LogSettings = field(default_factory=LogSettings)
    path: Path | None = field(default=None, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def value(self, path: str) -> Any:
        """The value of the scalar key at the dotted ``path``, as its kind parses it."""
        if path in {"data_dir", _TOKEN_FILE}:
            return str(getattr(self, path.rpartition(".")[2]) or "")
        found: Any = self
        for name in path.split("."):
            found = getattr(found, name)
        return found


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of ``environ`` over those of the file at ``path`` (None: no file).

    Raises `SettingsError` for the first fault.
    """
    given: dict[str, Given] = {}
    if path is not None:
        from plexd.agent.config.file import read_file  # noqa: PLC0415 - brings YAML with it

        given |= read_file(path)
    given |= read_environment(environ)
    settings = _built(path, given)
    check_together(settings)
    return settings


def _built(path: Path | None, given: dict[str, Given]) -> Settings:
    values = {
        key.path: given[key.path].value if key.path in given else key.kind.parse(key.default)
        for key in KEYS.values()
    }
    token_file = values.pop(_TOKEN_FILE)
    local = LocalEndpointConfig(**_section(values, "metrics.local_endpoint"))
    return Settings(
        data_dir=Path(values["data_dir"]) if values["data_dir"] else None,
        api=APIConfig(**_section(values, "api")),
        auth_token_file=Path(token_file) if token_file else None,
        metrics=MetricsConfig(**_section(values, "metrics"), local_endpoint=local),
        system=SystemSettings(**_section(values, "system")),
        wireguard=WireGuardSettings(**_section(values, "wireguard")),
        ping=PingSettings(**_section(values, "ping")),
        spool=SpoolSettings(**_section(values, "spool")),
        peers=given[PEERS].value if PEERS in given else (),
        log=LogSettings(**_section(values, "log")),
        path=path,
        origins=MappingProxyType({name: setting.origin for name, setting in given.items()}),
    )


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The section's own values by the last part of their keys, without its subsections."""
    return {
        path.rpartition(".")[2]: value
        for path, value in values.items()
        if path.rpartition(".")[0] == section
    }
