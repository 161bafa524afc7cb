"""Every scalar setting, in one table for the file, the environment and the manual."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from plexd.agent.config.kinds import (
    BOOLEAN,
    PROXY_ADDRESS,
    SECRET,
    TEXT,
    WEB_ADDRESS,
    Kind,
    choice,
    duration,
    interface,
    path,
    size,
    whole,
)

PEERS = "peers"

_NONE = timedelta(0)
_TICK = timedelta(milliseconds=10)
_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DECADE = timedelta(days=3650)

_LONGEST_ALTERNATIVE = 127  # ALTIFNAMSIZ with its end, linux/if.h


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its dotted path, its kind, its default as written, and what it does."""

    path: str
    kind: Kind
    default: str
    about: str


@dataclass(frozen=True, slots=True)
class Given:
    """A value that was set, and where: ``FILE:LINE`` or the name of a variable."""

    value: Any
    origin: str


def variable(path: str) -> str:
    """The environment variable that sets the key at ``path``."""
    return "PLEXD_" + path.upper().replace(".", "_")


_TABLE = (
    Key(
        "data_dir",
        path(optional=True),
        "/var/lib/plexd",
        "Where the node's identity and its undelivered points are kept. Empty keeps points in "
        "memory only.",
    ),
    Key(
        "api.base_url",
        WEB_ADDRESS,
        "",
        "Where the control plane is, `https://` or `http://`. A link-local address has its "
        "interface with it: `[fe80::1%25eth0]`. `plexd run` needs it.",
    ),
    Key(
        "api.auth_token",
        SECRET,
        "",
        "The node's bearer token at the control plane. Empty takes the one in the identity.",
    ),
    Key(
        "api.auth_token_file",
        path(optional=True),
        "",
        "A file with that token, in place of `auth_token`; read again when the token is refused.",
    ),
    Key(
        "api.ca_file",
        path(optional=True),
        "",
        "A PEM file of certificate authorities to trust instead of the system's.",
    ),
    Key(
        "api.tls_insecure_skip_verify",
        BOOLEAN,
        "false",
        "Do not verify the control plane's certificate. For tests only.",
    ),
    Key(
        "api.connect_timeout",
        duration(_TICK, _HOUR),
        "10s",
        "The longest that name lookup, connecting and the TLS handshake may take together.",
    ),
    Key(
        "api.request_timeout",
        duration(_TICK, _HOUR),
        "30s",
        "The longest a whole exchange may take, up to the last byte of the answer.",
    ),
    Key(
        "api.proxy",
        PROXY_ADDRESS,
        "",
        "The HTTP proxy on the way to the control plane, `http://[USER:PASSWORD@]HOST:PORT`.",
    ),
    Key(
        "metrics.enabled",
        BOOLEAN,
        "true",
        "Whether metrics are collected. `false` skips the checks of this section.",
    ),
    Key(
        "metrics.collect_interval",
        duration(_NONE, _DECADE),
        "15s",
        "Time between two collections, at least `5s`.",
    ),
    Key(
        "metrics.report_interval",
        duration(_NONE, _DECADE),
        "60s",
        "Time between two reports, at least `10s` and no shorter than the collect interval.",
    ),
    Key(
        "metrics.batch_size",
        whole(maximum=1_000_000),
        "100",
        "The most points in one report; as many waiting start a report early.",
    ),
    Key(
        "metrics.local_endpoint.url",
        TEXT,
        "",
        "A second, site-local destination, `https://` only. Empty means none.",
    ),
    Key(
        "metrics.local_endpoint.secret_key",
        SECRET,
        "",
        "The name of the secret at the control plane that holds the local endpoint's bearer "
        "token. Needed with `url`.",
    ),
    Key(
        "metrics.local_endpoint.tls_insecure_skip_verify",
        BOOLEAN,
        "false",
        "Do not verify the local endpoint's certificate.",
    ),
    Key(
        "system.mount_point",
        path(optional=False),
        "/",
        "The file system whose use is reported.",
    ),
    Key(
        "system.net_iface",
        interface(optional=True, longest=_LONGEST_ALTERNATIVE),
        "",
        "The interface whose traffic is reported, by its name or an alternative one (`altname` in "
        "`ip link`). Empty adds up all but `lo`.",
    ),
    Key(
        "wireguard.interface",
        interface(optional=True),
        "plexd0",
        "The WireGuard interface of the mesh. Empty measures no tunnels and no round trips.",
    ),
    Key(
        "wireguard.stale_after",
        duration(_SECOND, _DECADE),
        "180s",
        "The age from which a tunnel's last handshake counts as stale.",
    ),
    Key(
        "ping.timeout",
        duration(_TICK, _HOUR),
        "2s",
        "How long a peer may take to answer; shorter than the collect interval.",
    ),
    Key(
        "ping.loss_window",
        duration(_SECOND, _HOUR),
        "5m",
        "How far back lost pings count: the loss is that of the pings of so long, and of eight at "
        "least. Below eight it is not known. It begins again when a tunnel comes back.",
    ),
    Key(
        "spool.max_bytes",
        size(2**20, 2**50),
        "256MiB",
        "The most the spool's files may take, at least `1MiB`; the oldest points go first. Without "
        "`data_dir`, of memory, and `16MiB` at the most.",
    ),
    Key(
        "spool.max_age",
        duration(timedelta(minutes=1), timedelta(days=90)),
        "7d",
        "The longest an undelivered point is kept, `1m` to `90d`. Without effect in memory.",
    ),
    Key(
        "log.level",
        choice("debug", "info", "warning", "error"),
        "info",
        "The least important level that is logged.",
    ),
    Key(
        "log.format",
        choice("logfmt", "json"),
        "logfmt",
        "The form of a log line.",
    ),
)

KEYS = {key.path: key for key in _TABLE}
