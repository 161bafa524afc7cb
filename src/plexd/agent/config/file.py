"""The configuration file: from bytes to settings, each with its line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from plexd.agent.config.keys import KEYS, PEERS, Given
from plexd.agent.config.peers import read_peers
from plexd.agent.config.yaml_tree import (
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    YAMLError,
    missing_space,
    parse_yaml,
)
from plexd.agent.errors import SettingsError
from plexd.text import nearest, printable, quoted

if TYPE_CHECKING:
    from pathlib import Path


MAX_BYTES = 2**20

_SECTIONS = frozenset(
    path.rsplit(".", depth)[0] for path in KEYS for depth in range(1, path.count(".") + 1)
)
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)


def read_file(path: Path) -> dict[str, Given]:
    """The settings in the file at ``path``, by key. Raises `SettingsError` for the first fault.

    A file without content sets nothing. At most `MAX_BYTES` are read.
    """
    file = printable(path)
    text = _decoded(file, _bytes_of(file, path))
    try:
        root = parse_yaml(text)
    except YAMLError as err:
        raise SettingsError(f"{file}:{err.line}", "", err.reason) from None
    return _settings(file, root)


def _bytes_of(file: str, path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(file, "", "no such file; name another one with --config") from None
    except IsADirectoryError:
        raise SettingsError(file, "", "is a directory; name the file in it") from None
    except PermissionError:
        raise SettingsError(
            file, "", "permission denied; run as its owner or as a member of its group"
        ) from None
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        reason = err.strerror if isinstance(err, OSError) else "the name contains a NUL byte"
        raise SettingsError(file, "", f"cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise SettingsError(file, "", "larger than 1MiB, which no configuration is")
    return data


def _decoded(file: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise SettingsError(f"{file}:{line}", "", "is not UTF-8 text") from None


def _settings(file: str, root: Node | None) -> dict[str, Given]:
    if root is None or (isinstance(root, Scalar) and root.is_null):
        return {}
    if not isinstance(root, Mapping):
        reason = "expected lines of the form 'key: value' (with a space after the colon)"
        raise SettingsError(f"{file}:{root.line}", "", reason)
    settings: dict[str, Given] = {}
    waiting = [("", root)]
    while waiting:
        section, mapping = waiting.pop(0)
        for name, entry in mapping.entries.items():
            path = f"{section}{name}"
            if path in _SECTIONS and "." not in name:
                waiting += _subsection(file, path, entry)
            else:
                settings[path] = _setting(file, section, name, entry)
    return settings


def _subsection(file: str, path: str, entry: Entry) -> list[tuple[str, Mapping]]:
    value = entry.value
    if isinstance(value, Mapping):
        return [(f"{path}.", value)]
    if isinstance(value, Scalar) and value.is_null:  # every line of the section commented out
        return []
    glued = missing_space(value.text) if isinstance(value, Scalar) and not value.quoted else None
    if glued:
        raise SettingsError(f"{file}:{value.line}", path, glued)
    reason = f"expected a section of keys, found {_described(value)}"
    raise SettingsError(f"{file}:{entry.line}", path, reason)


def _setting(file: str, section: str, name: str, entry: Entry) -> Given:
    place = f"{file}:{entry.line}"
    path = f"{section}{name}"
    if path == PEERS:
        return Given(read_peers(file, entry.value), place)
    if path not in KEYS or "." in name:
        readable = section + (name if _NAME.fullmatch(name) else quoted(name))
        raise SettingsError(place, readable, f"unknown key{_suggestion(section, name)}")
    try:
        return Given(_parsed(path, entry.value), place)
    except ValueError as err:
        raise SettingsError(place, path, str(err)) from None


def _suggestion(section: str, name: str) -> str:
    if "." in name:
        return "; sections are nested by indentation, not by dots"
    known = [*KEYS, *_SECTIONS, PEERS]
    elsewhere = [path for path in known if path.rsplit(".", 1)[-1] == name]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    return nearest(f"{section}{name}", known)


def _parsed(path: str, node: Node) -> object:
    kind = KEYS[path].kind
    if not isinstance(node, Scalar):
        raise ValueError(f"expected {kind.name}, found {_described(node)}")  # noqa: TRY004 - it is
        # the user's type that is wrong, not the program's
    if node.is_null:
        raise ValueError("has no value; remove the line to get the default")
    if node.quoted and kind.typed:
        raise ValueError(
            f"expected {kind.name}, found the text {quoted(node.text)}; remove the quotes"
        )
    return kind.parse(node.text)


def _described(node: Node) -> str:
    if isinstance(node, Scalar):
        return quoted(node.text)
    return "a list" if isinstance(node, Sequence) else "a section"
