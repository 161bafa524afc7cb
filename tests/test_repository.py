"""What the repository promises about itself."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import plexd
import plexd_server

ROOT = Path(__file__).parent.parent
PACKAGES = [
    "plexd.api",
    "plexd.icmp",
    "plexd.metrics",
    "plexd.metrics.collectors",
    "plexd.metrics.reporters",
    "plexd.metrics.testing",
    "plexd.nodeapi",
    "plexd.procfs",
    "plexd.spool",
    "plexd.wireguard",
]
MODULES = sorted(
    found.name
    for package in (plexd, plexd_server)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not found.name.endswith("__main__")
)


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


@pytest.mark.parametrize("name", MODULES)
def test_everything_a_module_lists_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, listed) for listed in module.__all__), module.__all__


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("import plexd", {"asyncio", "msgspec", "logging"}),
        ("from plexd.agent.cli.main import main; main(['--version'])", {"asyncio", "msgspec"}),
        ("from plexd.agent.cli.main import main; main(['--version'])", {"yaml"}),
        ("from plexd import api, metrics", {"aiohttp", "yaml", "cryptography", "isal"}),
        ("from plexd.agent import app", {"aiohttp", "cryptography", "duckdb", "litestar"}),
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


def test_the_changelog_and_the_package_agree_on_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in changelog or f"## {plexd.__version__}" in changelog


def test_the_readmes_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page}: {target}"
