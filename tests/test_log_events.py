"""The manual lists every event that the two programs can log."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "plexd"
SERVER = ROOT / "src" / "plexd_server"
PAGE = ROOT / "docs" / "reference" / "logs.md"
LEVELS = {"debug", "info", "warning", "error", "critical"}
# A warning about the configuration is a sentence of its own; the manual has one row for all.
SENTENCE = "%s"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Event(NamedTuple):
    level: str
    text: str
    component: str


class Module:
    """The log calls of one source file."""

    def __init__(self, path: Path) -> None:
        self._tree = ast.parse(path.read_text())
        self.package = path.relative_to(SOURCE).parts[0]

    def components(self) -> Iterator[str]:
        """The components of the file's `LogOnce` objects."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and _is_name(node.func, "LogOnce"):
                yield self._text(node.args[1])

    def events(self, components: set[str]) -> Iterator[tuple[Event, set[str]]]:
        """Each event with the fields that are written beside the call."""
        for function in ast.walk(self._tree):
            if isinstance(function, Function):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                        yield from self._event(function, call, call.func, components)

    def _event(
        self, function: Function, call: ast.Call, method: ast.Attribute, components: set[str]
    ) -> Iterator[tuple[Event, set[str]]]:
        if method.attr not in LEVELS | {"warn"}:
            return
        target = ast.unparse(method.value)
        fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        if method.attr == "warn" and target.endswith("warnings"):
            (component,) = components
            yield Event("warning", self._text(call.args[0]), component), fields
        elif re.search(r"logger$|^logging\.getLogger\(", target):
            (extra,) = (k.value for k in call.keywords if k.arg == "extra")
            given = dict(self._items(function, extra))
            component = self._text(given.pop("component"))
            yield Event(method.attr, self._text(call.args[0]), component), set(given)

    def _text(self, node: ast.expr) -> str:
        """A literal, or the literal that a constant of the module holds."""
        if isinstance(node, ast.Name):
            (node,) = _assigned(self._tree, node.id)
        assert isinstance(node, ast.Constant), ast.unparse(node)
        return str(node.value)

    def _items(self, function: Function, node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
        """The entries of a dictionary: written in place, in a variable, or in a function."""
        if isinstance(node, ast.Name):
            (node,) = _assigned(function, node.id)
        if isinstance(node, ast.Call):
            (function,) = (
                found
                for found in self._tree.body
                if isinstance(found, Function) and _is_name(node.func, found.name)
            )
            (node,) = (r.value for r in ast.walk(function) if isinstance(r, ast.Return) and r.value)
        assert isinstance(node, ast.Dict), ast.unparse(node)
        for key, value in zip(node.keys, node.values, strict=True):
            assert key is not None
            yield self._text(key), value


def _assigned(scope: ast.AST, name: str) -> Iterator[ast.expr]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and _is_name(node.targets[0], name):
            yield node.value


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


@functools.cache
def logged() -> dict[Event, set[str]]:
    # The ground floor logs nothing of its own, and LogOnce passes on what the others log.
    modules = [Module(path) for path in sorted(SOURCE.glob("*/**/*.py"))]
    components: dict[str, set[str]] = {}
    for module in modules:
        components.setdefault(module.package, set()).update(module.components())
    found: dict[Event, set[str]] = {}
    for module in modules:
        for event, fields in module.events(components[module.package]):
            found.setdefault(event, set()).update(fields)
    return found


def documented() -> dict[Event, set[str]]:
    found = {}
    for level, text, component, fields, _ in rows("## Events"):
        literal = re.fullmatch(r"`(.+)`", text)
        event = Event(level, literal[1] if literal else SENTENCE, component.strip("`"))
        found[event] = set(re.findall(r"`(\w+)`", fields))
    return found


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under ``heading``, without its head."""
    section = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_the_manual_lists_exactly_the_events_that_are_logged() -> None:
    assert sorted(logged()) == sorted(documented())


@pytest.mark.parametrize("event", sorted(logged()), ids=lambda event: event.text)
def test_the_manual_names_the_fields_of_an_event(event: Event) -> None:
    assert logged()[event] <= documented().get(event, set())


def test_the_events_of_the_specification_are_those_of_the_metrics() -> None:
    texts = {event.text for event in logged() if event.component == "metrics"}
    assert texts >= {
        "metrics disabled",
        "collector failed",
        "metrics report failed",
        "latency ping failed",
        "using cached credential",
        "local metrics report failed",
        "local endpoint enabled",
    }


def test_every_other_component_is_the_package_that_logs() -> None:
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir()} | {"config"}
    assert {event.component for event in documented()} <= packages


def test_the_manual_lists_exactly_the_events_that_the_server_logs() -> None:
    call = re.compile(r'\b_LOG\.(\w+)\(\s*"([^"]+)"')
    source = "\n".join(path.read_text() for path in SERVER.rglob("*.py"))
    listed = {(level, text.strip("`")) for level, text, *_ in rows("## `plexd-server`")}
    assert len(re.findall(r"\b_LOG\.\w+\(", source)) == len(call.findall(source))
    once = {("warning", text) for text in re.findall(r'\.warn\(\s*"([^"]+)"', source)}
    assert set(call.findall(source)) | once == listed
