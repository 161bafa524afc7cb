"""How often to collect and report, and the second destination (seed, "Config")."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from plexd.api import LocalEndpointConfig
from plexd.metrics.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """The pipeline's parameters; every default is the seed's."""

    enabled: bool = True
    collect_interval: timedelta = timedelta(seconds=15)
    report_interval: timedelta = timedelta(seconds=60)
    batch_size: int = 100
    local_endpoint: LocalEndpointConfig = field(default_factory=LocalEndpointConfig)

    def validate(self) -> None:
        """Raise `ConfigError` in the words of the seed's tables; a disabled pipeline passes."""
        if not self.enabled:
            return
        if self.collect_interval < timedelta(seconds=5):
            raise ConfigError("metrics: config: CollectInterval must be at least 5s")
        if self.report_interval < timedelta(seconds=10):
            raise ConfigError("metrics: config: ReportInterval must be at least 10s")
        if self.report_interval < self.collect_interval:
            raise ConfigError("metrics: config: ReportInterval must be >= CollectInterval")
        if self.batch_size <= 0:
            raise ConfigError("metrics: config: BatchSize must be > 0")
        _validate_local_endpoint(self.local_endpoint)


def _validate_local_endpoint(endpoint: LocalEndpointConfig) -> None:
    if not endpoint.url:
        return
    prefix = "metrics: config: local_endpoint:"
    if not _is_url(endpoint.url):
        raise ConfigError(f'{prefix} invalid URL "{endpoint.url}"')
    scheme = urlsplit(endpoint.url).scheme
    if scheme != "https":
        raise ConfigError(f'{prefix} URL must be HTTPS, got "{scheme}"')
    if not endpoint.secret_key:
        raise ConfigError(f"{prefix} SecretKey is required when URL is set")


_UNPARSEABLE = re.compile(r"[\x00-\x1f\x7f]|^:|%(?![0-9a-fA-F]{2})")


def _is_url(text: str) -> bool:
    """Whether ``text`` can be parsed as a URL; what Go's ``url.Parse`` refuses is refused."""
    if _UNPARSEABLE.search(text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a port that is no number
    except ValueError:
        return False
    # Go accepts "https://" as well; but no request could ever be sent there.
    return " " not in parts.netloc and (parts.scheme != "https" or bool(parts.hostname))
