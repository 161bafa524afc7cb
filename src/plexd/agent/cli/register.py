"""``plexd register``: make this machine a node of the mesh."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from plexd import __version__
from plexd.agent.config.checks import warnings_about
from plexd.agent.config.keys import KEYS, variable
from plexd.agent.config.peers import parse_mesh_ip, parse_public_key
from plexd.agent.errors import NotReadyError, SettingsError
from plexd.agent.identity import FILE_NAME, Identity, save_identity
from plexd.api import (
    APIError,
    ControlPlane,
    DecodeError,
    Peer,
    Registration,
    Secret,
    TLSError,
    TransportError,
)
from plexd.console import complain, put
from plexd.text import bare, decoded, printable, quoted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from plexd.agent.config.settings import Settings

_TOKEN: Final = "PLEXD_TOKEN"  # noqa: S105 - the name of a variable
_MAX_TOKEN: Final = 4096
_STDIN: Final = 0
_BASE_URL: Final = "api.base_url"
_CA_FILE: Final = "api.ca_file"
_NO_AUTHORITY: Final = re.compile("issuer|self.signed|first certificate")  # OpenSSL's words
_REASONS: Final = {
    401: "the control plane does not take this token: {}; make one with: plexd-server token create",
    404: "there is no control plane that registers nodes at {server}: {}",
    409: "the control plane cannot take this machine: {}",
}


def register(options: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> None:
    """Enrol this machine and save its identity. Raises `NotReadyError` or `SettingsError`.

    Everything else is checked before anything is sent: a token may work only once.
    """
    _check("--public-key", options.public_key, parse_public_key)
    _check("--mesh-ip", options.mesh_ip, parse_mesh_ip)
    _check("--hostname", options.hostname, _parse_hostname)
    settings = _with_server(settings, options.server)
    directory = _data_dir(settings, force=options.force)
    for warning in warnings_about(settings, environ):
        complain("plexd", f"warning: {warning}")
    interface = options.interface or settings.wireguard.interface
    public_key = options.public_key or _public_key(interface)
    metadata = _metadata(options.mesh_ip or _address(interface))
    hostname = options.hostname or printable(socket.gethostname())
    token = _token(options.token_file, environ)
    made = asyncio.run(_enrol(settings, token, public_key, hostname, metadata))
    peers, warning = _usable(made.peers, interface)
    made = msgspec.structs.replace(made, peers=peers)
    key, auth_token = bare(made.node_secret_key), bare(made.auth_token)
    identity = Identity(made.node_id, made.mesh_ip, key, auth_token, tuple(made.peers))
    save_identity(directory, identity)
    missing = _not_in_the_file(settings, interface)
    put(_outcome(made, missing, directory, has_address=bool(metadata.get("mesh_ip"))))
    if warning:
        complain("plexd", f"warning: {warning}")
    if _is_numbered(made.node_id, hostname):
        complain(
            "plexd",
            f"warning: {hostname} is or was another node; to be that one again, register with "
            f"a token made with: plexd-server token create --node {hostname}",
        )


def _check(option: str, text: str | None, parse: Callable[[str], object]) -> None:
    if text is None:
        return
    try:
        parse(text)
    except ValueError as err:
        raise SettingsError(option, "", str(err)) from None


def _parse_hostname(text: str) -> None:
    if not text.isprintable():
        raise ValueError("expected printable text")


def _with_server(settings: Settings, server: str | None) -> Settings:
    if server is not None and server != settings.api.base_url:
        origins = {key: where for key, where in settings.origins.items() if key != _BASE_URL}
        return replace(settings, api=replace(settings.api, base_url=server), origins=origins)
    if not settings.api.base_url:
        reason = "is not set; say where the control plane is: plexd register --server URL"
        raise SettingsError("", "api.base_url", reason)
    return settings


def _data_dir(settings: Settings, *, force: bool) -> Path:
    """The directory for the identity: it exists, and has no identity unless ``force`` is set."""
    path = settings.data_dir
    if path is None:
        raise SettingsError("", "data_dir", "is empty, so there is no place for the identity")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        exists = (path / FILE_NAME).exists()
    except OSError as err:
        raise NotReadyError(f"cannot use data_dir {path}: {err.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        raise NotReadyError(
            f"data_dir {path} cannot be written to; run this as the user plexd runs as"
        )
    if exists and not force:
        raise NotReadyError(
            f"this machine is a node already: {path / FILE_NAME}; --force makes another of it"
        )
    return path


def _public_key(interface: str) -> str:
    from plexd.agent.interface import (  # noqa: PLC0415 - loads the readers
        is_there,
        read_public_key,
        userspace_tool,
    )
    from plexd.wireguard import Absent, WireGuardError  # noqa: PLC0415 - the same

    if not interface:
        raise NotReadyError("no interface to read a public key from; give one with --public-key")
    try:
        found = asyncio.run(read_public_key(interface))
    except WireGuardError as err:
        found = Absent(str(err))
    if not isinstance(found, Absent):
        return found
    if not is_there(interface):
        raise NotReadyError(
            f"there is no interface {quoted(interface)}; name the mesh's with --interface, or give "
            "the public key with --public-key"
        )
    way_out = "name the mesh's interface with --interface, or give the key with --public-key"
    if tool := userspace_tool(interface):
        found = Absent("a userspace daemon runs it, and tells its private key only")
        way_out = f'in userspace: --public-key "$({tool} show {printable(interface)} public-key)"'
    raise NotReadyError(
        f"cannot read the public key of {quoted(interface)}: {found.reason}; {way_out}"
    )


def _address(interface: str) -> str:
    from plexd.agent.interface import read_address  # noqa: PLC0415 - needed without --mesh-ip only

    return read_address(interface) if interface else ""


def _usable(peers: list[Peer], interface: str) -> tuple[list[Peer], str]:
    """The peers of a registration that this node can use, and a warning about the others."""
    from plexd.agent.peer_list import read_list  # noqa: PLC0415 - loads the readers

    found = asyncio.run(read_list(peers, interface))
    left_out = f"{found.left_out} of the peers cannot be used: {found.error}"
    return found.peers, printable(left_out) if found.left_out else ""


def _metadata(mesh_ip: str) -> dict[str, str]:
    """What the control plane learns about this machine besides its name."""
    about = {
        "arch": platform.machine(),
        "kernel": platform.release(),
        "os": _os_name(),
        "plexd": __version__,
        "mesh_ip": mesh_ip,
    }
    return {name: value[:512] for name, value in about.items() if value}


def _os_name() -> str:
    try:
        return printable(platform.freedesktop_os_release().get("PRETTY_NAME", ""))
    except (OSError, ValueError):  # ValueError: it is no text
        return ""


def _token(file: str | None, environ: Mapping[str, str]) -> str:
    """The bootstrap token: from a file, the environment or standard input."""
    if file is not None:
        text = _read("--token-file", Path(file))
    elif environ.get(_TOKEN):
        text = environ[_TOKEN]
    elif sys.stdin is not None and sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - at a terminal only

        text = getpass("Bootstrap token: ")
    else:
        text = _read("standard input", _STDIN)
    text = bare(text).strip()
    if not text or not (text.isascii() and text.isprintable()) or " " in text:
        raise NotReadyError("there is no bootstrap token; make one with: plexd-server token create")
    return text


def _read(name: str, source: Path | int) -> str:
    try:
        with open(source, "rb", closefd=isinstance(source, Path)) as opened:
            return decoded(opened.read(_MAX_TOKEN))
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        # The name is not repeated: it may be the token itself.
        raise NotReadyError(
            f"cannot read the token from {name}: {reason}; it has to be a file that holds the token"
        ) from None


async def _enrol(
    settings: Settings, token: str, public_key: str, hostname: str, metadata: Mapping[str, str]
) -> Registration:
    try:
        async with ControlPlane(settings.api) as plane:
            return await plane.register(token, public_key, hostname, metadata)
    except APIError as err:
        reason = printable(err.message).replace(token, str(Secret(token)))
        text = _REASONS.get(err.status_code, "the control plane refused: {}")
        wait = "" if err.retry_after is None else f"; {_again(err.retry_after)}"
        raise NotReadyError(text.format(reason, server=settings.api.base_url) + wait) from None
    except TransportError as err:
        unsure = "; if it had the token already, a one-time token is used up"
        reason = printable(err.reason) + (unsure if err.was_connected else "")
        if isinstance(err, TLSError) and _NO_AUTHORITY.search(reason) and not settings.api.ca_file:
            reason += f"; name the authority it is from in api.ca_file or {variable(_CA_FILE)}"
        raise NotReadyError(
            f"cannot reach the control plane at {settings.api.base_url}: {reason}"
        ) from None
    except DecodeError as err:
        raise NotReadyError(f"no control plane answers at {settings.api.base_url}: {err}") from None
    except ValueError as err:
        raise SettingsError("", "api.base_url", printable(str(err))) from None


def _again(wait: timedelta) -> str:
    return f"try again in {math.ceil(wait.total_seconds())} s"


def _outcome(made: Registration, missing: list[str], directory: Path, *, has_address: bool) -> str:
    """What this machine is now, and what to do next."""
    address = f", {made.mesh_ip} in the mesh" if made.mesh_ip else ""
    peers = "1 peer" if len(made.peers) == 1 else f"{len(made.peers)} peers"
    lines = [
        f"this machine is node {made.node_id}{address}, with {peers}",
        f"identity: {directory / FILE_NAME}",
    ]
    if made.mesh_ip and not has_address:
        lines.append(f"next: give the mesh's interface the address {made.mesh_ip}")
    if missing:
        lines += ["next: say in /etc/plexd/config.yaml:", *(f"  {line}" for line in missing)]
    lines.append("next: plexd run")
    return "".join(f"{printable(line)}\n" for line in lines)


def _is_numbered(node_id: str, hostname: str) -> bool:
    """Whether the id is the host's name with the number that the server puts after a taken one."""
    return re.fullmatch(re.escape(hostname) + r"-([2-9]|[1-9]\d+)", node_id) is not None


def _not_in_the_file(settings: Settings, interface: str) -> list[str]:
    """The options that `plexd run` needs in the configuration file as well, as YAML."""
    api = [
        _yaml(key, settings.value(key))
        for key in (_BASE_URL, _CA_FILE)
        if settings.value(key) and settings.origins.get(key) in {None, variable(key)}
    ]
    lines = [f"api: {{{', '.join(api)}}}"] if api else []
    if interface and interface != settings.wireguard.interface:
        lines.append(f"wireguard: {{{_yaml('wireguard.interface', interface)}}}")
    return lines


def _yaml(key: str, value: object) -> str:
    return f"{key.rpartition('.')[2]}: {KEYS[key].kind.yaml(value)}"
