"""The settings in effect as YAML that `load_settings` reads back, with secrets redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd import __version__
from plexd.agent.config.keys import KEYS, PEERS
from plexd.agent.config.kinds import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.agent.config.settings import Settings

_HEADER = f"""\
# The settings plexd {__version__} works with. A comment tells where a value was set;
# values without one are the defaults.
"""


def show_settings(settings: Settings) -> str:
    """Every key in the order of the manual, with its origin if it is not a default."""
    return _HEADER + "".join(f"{line}\n" for line in _lines(settings))


def _lines(settings: Settings) -> Iterator[str]:
    above: list[str] = []
    for path in KEYS:
        if path == "log.level":  # the list comes before the log, as in the manual
            yield from _peers(settings)
        *sections, name = path.split(".")
        for depth, section in enumerate(sections):
            if above[: depth + 1] != sections[: depth + 1]:
                yield f"{'  ' * depth}{section}:"
        above = sections
        value = KEYS[path].kind.yaml(settings.value(path))
        yield f"{'  ' * len(sections)}{name}: {value}{_origin(settings, path)}"


def _peers(settings: Settings) -> Iterator[str]:
    yield f"peers:{'' if settings.peers else ' []'}{_origin(settings, PEERS)}"
    for peer in settings.peers:
        yield f"  - id: {TEXT.yaml(peer.id)}"
        yield f"    public_key: {TEXT.yaml(peer.public_key)}"
        yield f"    mesh_ip: {TEXT.yaml(peer.mesh_ip)}"


def _origin(settings: Settings, path: str) -> str:
    return f"  # {settings.origins[path]}" if path in settings.origins else ""
