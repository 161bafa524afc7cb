"""How to reach the two places metrics are delivered to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from plexd.api.secret import Secret


@dataclass(frozen=True, slots=True)
class Config:
    """Where the control plane is and how long to wait for it.

    ``ca_file`` names a PEM file that replaces the system's certificate authorities; empty keeps
    them. ``connect_timeout`` bounds name lookup, TCP and TLS together, ``request_timeout`` a
    whole exchange up to the last byte of the answer. ``proxy`` is the ``http://`` URL of a proxy
    to go through; it is redacted if it holds a password.
    """

    base_url: str
    auth_token: str = ""
    tls_insecure_skip_verify: bool = False
    ca_file: str = ""
    connect_timeout: timedelta = timedelta(seconds=10)
    request_timeout: timedelta = timedelta(seconds=30)
    proxy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "auth_token", Secret(self.auth_token))
        if "@" in self.proxy:
            object.__setattr__(self, "proxy", Secret(self.proxy))


@dataclass(frozen=True, slots=True)
class LocalEndpointConfig:
    """A second, site-local destination (seed, "Local Endpoint"); an empty ``url`` means none.

    ``secret_key`` is the *name* of a secret at the control plane, whose value becomes the bearer
    token; it is redacted wherever the configuration is printed.
    """

    url: str = ""
    secret_key: str = ""
    tls_insecure_skip_verify: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret_key", Secret(self.secret_key))
