"""YAML text as a tree with line numbers, without what a configuration never needs.

Accepted: mappings, sequences and plain or quoted scalars, UTF-8, one document. Refused with the
line: anchors, aliases, tags, several documents, duplicate keys, keys that are no plain text,
nesting deeper than 16, more than 200,000 parts. A scalar stays text; its key decides what it means,
so ``yes``, ``0123`` and ``1e3`` are never guessed.

PyYAML's events are used instead of its loaders: a loader builds values recursively, resolves
types by guessing, keeps the last of two equal keys and forgets the lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from yaml import events

from plexd.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

# The parser in C reads a megabyte of anything within these limits in well under a second.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 16
_MAX_PARTS = 200_000
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
# What libyaml says of the commonest mistakes, here and in `_explained`.
_NO_COLON = "could not find expected ':'"
_SECOND_COLON = "mapping values are not allowed in this context"
_SLIPS = {
    _NO_COLON,
    _SECOND_COLON,
    "did not find expected key",
    "did not find expected <document start>",
}
_GLUED = re.compile(r"\s*(?:- +)?([A-Za-z_]\w{0,40}):(?!//)[^\s:]", re.ASCII)
_COLON = re.compile(r":\s")


class YAMLError(Exception):
    """Text that is no YAML, or more YAML than is accepted; ``line`` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


@dataclass(slots=True)
class Scalar:
    """One value as it is written; ``quoted`` distinguishes ``"100"`` from ``100``."""

    line: int
    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        """Whether YAML reads it as no value at all."""
        return not self.quoted and self.text in {"", "~", "null", "Null", "NULL"}


@dataclass(slots=True)
class Sequence:
    """A list of nodes."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """One key of a mapping, its line, and its value."""

    line: int
    value: Node


@dataclass(slots=True)
class Mapping:
    """Keys in the order they are written."""

    line: int
    entries: dict[str, Entry] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def parse_yaml(text: str) -> Node | None:
    """The document's root, or None for a document without content. Raises `YAMLError`."""
    found = _UNPRINTABLE.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise YAMLError(line, f"the character U+{ord(found[0]):04X} is not allowed")
    tree = _Tree()
    for event in _events(text):
        tree.add(event)
    return tree.root


def _events(text: str) -> Iterator[events.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as err:
        raise _explained(text, err) or _located(text, err) from None


def missing_space(text: str) -> str | None:
    """The complaint about ``text`` if it begins as ``key:value``, which is one word for YAML."""
    found = _GLUED.match(text)
    return f'a space is missing after "{found[1]}:"' if found else None


def _explained(text: str, err: yaml.MarkedYAMLError) -> YAMLError | None:
    """The mistake in the user's words; libyaml's text says what the parser could not do."""
    problem, mark = err.problem or "", err.problem_mark
    if mark is None or problem not in _SLIPS:
        return None
    # The parser notices a missing colon only at the next colon, or at the end.
    key = err.context_mark if problem == _NO_COLON else None
    first = key.line if key else max(mark.line - 1, 0)
    lines = text.splitlines()[: mark.line + 1]
    for number, line in enumerate(lines[first:], first + 1):
        reason = missing_space(line)
        if reason:
            return YAMLError(number, reason)
    if key:
        return YAMLError(first + 1, "expected 'key: value' (with a space after the colon)")
    before = lines[mark.line][: mark.column] if mark.line < len(lines) else ""
    return YAMLError(mark.line + 1, _slip(problem, before))


def _slip(problem: str, before: str) -> str:
    """What is wrong on a line whose text up to the parser's complaint is ``before``."""
    if problem != _SECOND_COLON:
        if before.strip():
            return "more text stands after the end of the value"
        return "this line does not fit those above; check the indentation"
    if _COLON.search(before):
        return "a value that contains a colon and a space has to be in quotes"
    return "wrong indentation, or a colon is missing on the line above"


def _located(text: str, err: yaml.MarkedYAMLError) -> YAMLError:
    mark = err.problem_mark or err.context_mark
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return YAMLError(mark.line + 1, "a tab stands where YAML wants spaces; indent with spaces")
    if mark is None or mark.index >= len(text.rstrip()):
        return YAMLError(text.rstrip().count("\n") + 1, "the file ends in the middle of a value")
    problem = err.problem or err.context or "no YAML"
    if "cannot start any token" in problem:
        return YAMLError(mark.line + 1, "a value starts with a special character; put it in quotes")
    return YAMLError(mark.line + 1, problem)


class _Tree:
    """Builds the tree event by event; the open containers are a list, so depth costs no stack."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[Sequence | Mapping, list[Scalar]]] = []
        self._parts = 0
        self._documents = 0

    def add(self, event: events.Event) -> None:
        """Add the node of ``event``."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise YAMLError(line, f"more than {_MAX_PARTS} values")
        if isinstance(event, events.NodeEvent):
            self._add_node(line, event)
        elif isinstance(event, events.DocumentStartEvent):
            self._add_document(line)
        elif isinstance(event, events.CollectionEndEvent):
            self._open.pop()

    def _add_document(self, line: int) -> None:
        self._documents += 1
        if self._documents > 1:
            raise YAMLError(line, "a second document starts here; one file holds one")

    def _add_node(self, line: int, event: events.NodeEvent) -> None:
        if isinstance(event, events.AliasEvent) or event.anchor is not None:
            raise YAMLError(line, "anchors and aliases (& and *) are not supported")
        if getattr(event, "tag", None) is not None:
            raise YAMLError(line, "tags (!) are not supported")
        if isinstance(event, events.ScalarEvent):
            self._place(Scalar(line, event.value, quoted=event.style not in {None, ""}))
        elif isinstance(event, events.SequenceStartEvent):
            self._enter(Sequence(line))
        else:
            self._enter(Mapping(line))

    def _enter(self, node: Sequence | Mapping) -> None:
        if len(self._open) == _MAX_DEPTH:
            raise YAMLError(node.line, f"nested more than {_MAX_DEPTH} levels deep")
        self._place(node)
        self._open.append((node, []))

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent, key = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif key:
            name = key.pop()
            parent.entries[name.text] = Entry(name.line, node)
        else:
            key.append(_as_key(parent, node))


def _as_key(parent: Mapping, node: Node) -> Scalar:
    if not isinstance(node, Scalar):
        raise YAMLError(node.line, "a list or mapping cannot be a key")
    if node.text in parent.entries:
        first = parent.entries[node.text].line
        raise YAMLError(node.line, f"the key {quoted(node.text)} stands on line {first} already")
    return node
