"""What one setting cannot show by itself: clashes, risks, and names of what is not there."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address, ip_network
from shlex import quote
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from plexd.agent.config.environment import unknown_variables
from plexd.agent.config.keys import variable
from plexd.agent.config.kinds import has_userinfo
from plexd.agent.errors import SettingsError
from plexd.agent.private_file import how_to_close, opened
from plexd.api import TLSError, Trust, check_zone
from plexd.metrics.errors import ConfigError
from plexd.text import nearest, printable, quoted
from plexd.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from plexd.agent.config.settings import Settings

# A refused URL is quoted whole, and may be a megabyte.
_LONGEST = 500

# The pipeline's validation names its own fields; the author of the file knows them as keys.
_FIELDS = {
    "CollectInterval": "metrics.collect_interval",
    "ReportInterval": "metrics.report_interval",
    "BatchSize": "metrics.batch_size",
    "URL": "metrics.local_endpoint.url",
    "SecretKey": "metrics.local_endpoint.secret_key",
}
# As curl and most others read them; the lower case comes first.
_PROXIES = ("https_proxy", "all_proxy")
_FIELD = re.compile(rf"\b(?:{'|'.join(_FIELDS)})\b")


def check_together(settings: Settings) -> None:
    """Raise `SettingsError` for values that are right one by one and wrong together."""
    if settings.auth_token_file is not None and settings.api.auth_token:
        both = ("api.auth_token_file", "api.auth_token")
        _refuse(settings, both, "is set beside api.auth_token; one of the two has to be empty")
    if not settings.metrics.enabled:
        return
    url = "metrics.local_endpoint.url"
    if has_userinfo(settings.metrics.local_endpoint.url):
        _refuse(settings, (url,), "must not contain a user or password; use secret_key")
    try:
        settings.metrics.validate()
    except ConfigError as err:
        keys, reason = _in_keys(str(err))
        _refuse(settings, keys, printable(reason))
    try:
        check_zone(settings.metrics.local_endpoint.url)
    except ValueError as err:
        _refuse(settings, (url,), str(err))
    if settings.ping.timeout >= settings.metrics.collect_interval:
        interval = format_duration(settings.metrics.collect_interval)
        reason = f"must be shorter than metrics.collect_interval ({interval})"
        _refuse(settings, ("ping.timeout", "metrics.collect_interval"), reason)


def check_for_run(settings: Settings, *, has_identity: bool = False) -> None:
    """Raise `SettingsError` for what only a running agent needs.

    ``has_identity`` says that the identity does not come from the data directory.
    """
    if not settings.api.base_url:
        reason = (
            "is not set; write the control plane's address into the configuration file or set "
            "PLEXD_API_BASE_URL"
        )
        _refuse(settings, ("api.base_url",), reason)
    if settings.data_dir is None and not has_identity:
        reason = "is empty, so say where the node's identity is: plexd run --identity FILE"
        _refuse(settings, ("data_dir",), reason)


def _in_keys(complaint: str) -> tuple[tuple[str, ...], str]:
    """The keys ``complaint`` is about, the one at fault first, and what is wrong with that one.

    ``"metrics: config: BatchSize must be > 0"`` becomes ``metrics.batch_size``, ``"must be > 0"``.
    """
    words = complaint.removeprefix("metrics: config: ")
    within = words.removeprefix("local_endpoint: ")
    field, _, rest = within.partition(" ")
    if field in _FIELDS:
        keys = tuple(_FIELDS[name] for name in _FIELD.findall(within))
        return keys, _FIELD.sub(lambda name: _FIELDS[name[0]], rest)
    return (("metrics",) if within == words else (_FIELDS["URL"],)), within


def _refuse(settings: Settings, keys: tuple[str, ...], reason: str) -> NoReturn:
    """Name the first key and the place where that key, or else one it clashes with, was set."""
    places = [settings.origins[key] for key in keys if key in settings.origins]
    places.append(printable(settings.path) if settings.path else "")
    raise SettingsError(places[0], keys[0], reason[:_LONGEST])


def warnings_about(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence for each setting that works but that the operator should know of."""
    yield from unknown_variables(environ)
    if "api.auth_token" in settings.origins and _readable_by_all(settings):
        name = printable(str(settings.path))
        yield f"{name}: everybody can read api.auth_token in it; {_cure(name)}"
    if _token_in_the_clear(settings):
        yield "api.base_url: http:// sends the node's bearer token unencrypted; use https://"
    for section in ("api", "metrics.local_endpoint"):
        if settings.value(f"{section}.tls_insecure_skip_verify"):
            yield f"{section}.tls_insecure_skip_verify: whoever answers is trusted; use for tests"
    yield from _unusable_authorities(settings.api.ca_file)
    yield from _exposed_token(settings.auth_token_file)
    yield from _unused_proxies(settings, environ)
    if not settings.api.base_url:
        yield "api.base_url: is not set; `plexd run` needs it"


def _cure(name: str) -> str:
    with suppress(OSError):
        if os.statvfs(name).f_flag & os.ST_RDONLY:
            return "its mount is read-only, so give it mode 0640 where it comes from"
    return f"run: chmod 0640 {quote(name)}"


def _readable_by_all(settings: Settings) -> bool:
    if settings.path is None or settings.origins["api.auth_token"] == variable("api.auth_token"):
        return False
    try:
        return bool(settings.path.stat().st_mode & stat.S_IROTH)
    except OSError:  # it was there a moment ago; somebody removed it
        return False


def _unusable_authorities(ca_file: str) -> Iterator[str]:
    if ca_file and not os.access(ca_file, os.R_OK):
        yield f"api.ca_file: {ca_file} cannot be read"
    elif ca_file:
        try:
            Trust(ca_file).context()
        except TLSError as err:
            yield f"api.ca_file: {err.reason}"


def _exposed_token(path: Path | None) -> Iterator[str]:
    if path is None:
        return
    with suppress(OSError), opened(path) as descriptor:  # that it is missing is an error elsewhere
        if hint := how_to_close(path, descriptor):
            yield f"api.auth_token_file: others can read {printable(path)}; {hint}"


def _unused_proxies(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence if other programs would go through a proxy; its URL may be a secret."""
    scheme = urlsplit(settings.api.base_url).scheme or "https"
    known = dict.fromkeys((f"{scheme}_proxy", *_PROXIES))
    spellings = [name for proxy in known for name in (proxy, proxy.upper())]
    named = [name for name in spellings if environ.get(name)]
    if not named or settings.api.proxy or _is_excepted(settings.api.base_url, environ):
        return
    yield (
        f"{named[0]}: not used; if the control plane is behind a proxy, set api.proxy "
        f"({variable('api.proxy')})"
    )


def _is_excepted(base_url: str, environ: Mapping[str, str]) -> bool:
    """Whether ``NO_PROXY`` covers the control plane, in the way of most programs."""
    parts = urlsplit(base_url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    names = [name.lower() for name in re.split(r"[,\s]+", text) if name]
    return any(_covers(name, parts.hostname or "", port) for name in names)


def _covers(exception: str, host: str, port: int) -> bool:
    """Whether one part of ``NO_PROXY``, a name, an address or a network, covers the host."""
    with suppress(ValueError):
        return ip_address(host) in ip_network(exception.strip("[]"), strict=False)
    name, _, wanted = exception.partition(":")
    domain = name.lstrip("*").lstrip(".")
    is_host = name == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))
    return is_host and wanted in {"", str(port)}


def _token_in_the_clear(settings: Settings) -> bool:
    parts = urlsplit(settings.api.base_url)
    return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warnings_about_machine(settings: Settings) -> Iterator[str]:
    """Yield one sentence for each part of the machine that a setting names and that is missing.

    Defaults are not looked at. It takes as long as it waits for a file system that hangs, about
    two seconds. It must not be called while an event loop runs.
    """
    if "system.mount_point" in settings.origins:
        yield from _missing_mount_point(settings.system.mount_point)
    for key in ("system.net_iface", "wireguard.interface"):
        if key in settings.origins and settings.value(key):
            yield from _missing_interface(key, settings.value(key))


def _missing_mount_point(path: str) -> Iterator[str]:
    from plexd.clock import SystemClock  # noqa: PLC0415 - only to look at the machine
    from plexd.procfs import MountPoint  # noqa: PLC0415 - the same
    from plexd.procfs.errors import ProcfsError  # noqa: PLC0415 - the same

    # Asked as the collector asks, because a plain stat() of a dead network mount never returns.
    mount = MountPoint(path, clock=SystemClock())
    try:
        asyncio.run(mount.read_usage())
    except ProcfsError as err:
        yield f"system.mount_point: {path}: {err.reason.removeprefix('statvfs: ')}"


def _missing_interface(key: str, name: str) -> Iterator[str]:
    try:
        names = [known for _, known in socket.if_nameindex()]
    except OSError:  # a sandbox without netlink: nothing is known, so nothing is said
        return
    from plexd.procfs import primary_name  # noqa: PLC0415 - only to look at the machine

    if name not in names and not primary_name(os.fsencode(name)):
        yield f"{key}: there is no interface {quoted(name)}{nearest(name, names)}"
