"""What the repository promises about itself."""

from __future__ import annotations

import ast
import graphlib
import importlib
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import plexd
import plexd_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parent.parent
CODE = ("src", "tests", "benchmarks", "tools")
FOUND = sorted(
    (found.name, found.ispkg)
    for package in (plexd, plexd_server)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not found.name.endswith("__main__")
)
PACKAGES = [
    name for name, is_package in FOUND if is_package and importlib.import_module(name).__all__
]
SOURCES = {
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "src").rglob("*.py"))
}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_public_names_are_those_listed_and_in_order(name: str) -> None:
    package = importlib.import_module(name)
    loaded = [getattr(package, name) for name in package.__all__]  # some only when asked for
    public = {n for n in vars(package) if not n.startswith("_") and not _is_module(package, n)}
    assert public <= set(package.__all__)
    assert len(loaded) == len(package.__all__)
    listed = package.__all__
    assert listed == sorted(listed, key=_as_ruff_sorts)


def _is_module(package: object, name: str) -> bool:
    return type(getattr(package, name)).__name__ == "module" or name == "TYPE_CHECKING"


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, classes, functions; each by name."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize(("name", "is_package"), FOUND)
def test_every_package_lists_its_names_and_no_other_module_does(
    name: str, is_package: bool
) -> None:
    assert hasattr(importlib.import_module(name), "__all__") == is_package


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("import plexd", {"asyncio", "msgspec", "logging"}),
        ("from plexd.agent.cli.main import main; main(['--version'])", {"asyncio", "msgspec"}),
        ("from plexd.agent.cli.main import main; main(['--version'])", {"yaml"}),
        ("from plexd import api, metrics", {"aiohttp", "yaml", "cryptography", "isal"}),
        ("from plexd.agent import app", {"aiohttp", "cryptography", "duckdb", "litestar"}),
        ("from plexd.agent import app", {"yaml", "ctypes", "email", "shutil", "tempfile"}),
    ],
)
def test_only_what_is_needed_is_imported(command: str, unwanted: set[str]) -> None:
    code = f"import sys; {command}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert unwanted & set(done.stderr.split()) == set()


def test_the_lock_pins_everything_with_hashes_and_names_no_registry() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = re.findall(r"^[a-z0-9._-]+==\S+", lock, re.MULTILINE)
    assert len(pinned) > 30
    assert lock.count("--hash=sha256:") > len(pinned)
    assert not re.search(r"https?://|--(extra-)?index|--find-links", lock)


@pytest.mark.slow
def test_a_class_name_is_there_once_but_for_the_two_configs() -> None:
    names = Counter(
        node.name.lstrip("_")
        for path in SOURCES.values()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == {"Config"}


def test_no_file_bears_the_name_of_a_standard_module() -> None:
    files = [path for top in CODE for path in (ROOT / top).rglob("*") if _is_importable(path)]
    assert len(files) > len(SOURCES)
    assert [path for path in files if path.stem in sys.stdlib_module_names] == []


def _is_importable(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = {name: set(_imports(ast.parse(path.read_bytes()).body)) & SOURCES.keys()
               for name, path in SOURCES.items()}  # fmt: skip
    assert sum(map(len, imports.values())) > len(imports)
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError with the circle


def _imports(body: Iterable[ast.stmt]) -> Iterator[str]:
    """What is imported with the module; what a function imports is late on purpose."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (path if path in SOURCES else str(node.module) for path in paths)
        elif isinstance(node, ast.If):
            is_for_types = ast.unparse(node.test) == "TYPE_CHECKING"
            yield from _imports(node.orelse if is_for_types else node.body + node.orelse)
        elif isinstance(node, ast.Try):
            yield from _imports(node.body)


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    assert agree((ROOT / "CHANGELOG.md").read_text(), plexd.__version__)


@pytest.mark.parametrize(
    ("sections", "version", "expected"),
    [
        (["Unreleased"], "0.1.0", True),
        (["Unreleased"], "0.2.0", False),
        (["0.1.0"], "0.1.0", True),
        (["0.1.0"], "0.1.1", False),
        (["Unreleased", "0.1.0"], "0.1.0", True),
        (["Unreleased", "0.1.0"], "0.1.1", True),
        (["Unreleased", "0.1.0"], "1.0.0", True),
        (["Unreleased", "0.1.0"], "0.3.0", False),
        (["0.2.0", "0.1.0"], "0.1.0", False),
        (["0.1.0", "0.2.0"], "0.2.0", False),
    ],
)
def test_a_version_that_is_neither_the_newest_nor_the_next_does_not_agree(
    sections: list[str], version: str, *, expected: bool
) -> None:
    changelog = "".join(f"## {section} (2026-11-28)\n\n- A change.\n\n" for section in sections)

    assert agree(changelog, version) is expected


def agree(changelog: str, version: str) -> bool:
    """Whether ``version`` is the newest released one, or may follow it with what is unreleased."""
    first, *others = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    released = [_numbers(section) for section in (first, *others) if section != "Unreleased"]
    if released != sorted(released, reverse=True):
        return False
    major, minor, patch = newest = released[0] if released else (0, 0, 0)
    following = {(major, minor, patch + 1), (major, minor + 1, 0), (major + 1, 0, 0)}
    return _numbers(version) in ({newest} | following if first == "Unreleased" else {newest})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_readmes_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page}: {target}"
