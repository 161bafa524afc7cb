"""How the browser's libraries come into the package, with a stand-in for npm and its registry."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
# Does what npm does as far as the hook sees it, and counts how often.
NPM = """#!/bin/sh
echo "$*" >> "$NPM_LOG"
[ -f package-lock.json ] && [ -f .npmrc ] || exit 1
mkdir -p node_modules/uplot/dist
cp package-lock.json node_modules/uplot/dist/uPlot.iife.min.js
echo style > node_modules/uplot/dist/uPlot.min.css
echo licence > node_modules/uplot/LICENSE
"""


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = _loaded()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "browser", tmp_path / "browser")
    return tmp_path


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose npm is the stand-in; the file in which it notes its calls."""
    _put_npm(tmp_path / "bin", NPM)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("NPM_LOG", str(tmp_path / "calls"))
    return tmp_path / "calls"


def _put_npm(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(script)
    (folder / "npm").chmod(0o755)


def _build(root: Path) -> list[str]:
    hook = HOOK.BrowserLibraries(str(root), {}, None, None, "", "wheel")
    hook.initialize("standard", {})
    return sorted(path.name for path in HOOK.vendor(root).iterdir())


def test_libraries_are_fetched_once_with_their_licence_and_without_scripts(
    checkout: Path, calls: Path
) -> None:
    found = ["package-lock.json", "uplot.LICENSE", "uplot.css", "uplot.js"]

    assert _build(checkout) == found
    assert _build(checkout) == found

    assert calls.read_text() == "ci --ignore-scripts --no-audit --no-fund\n"


def test_another_lock_and_a_missing_file_are_taken_up(checkout: Path, calls: Path) -> None:
    _build(checkout)
    lock = checkout / "browser" / "package-lock.json"
    lock.write_text(lock.read_text() + "\n")
    (HOOK.vendor(checkout) / "of-before.js").touch()

    _build(checkout)
    assert (HOOK.vendor(checkout) / "uplot.js").read_text() == lock.read_text()
    assert not (HOOK.vendor(checkout) / "of-before.js").exists()

    (HOOK.vendor(checkout) / "uplot.css").unlink()
    _build(checkout)
    assert len(calls.read_text().splitlines()) == 3


def test_a_failure_says_what_is_needed_and_keeps_what_is_there(
    checkout: Path, calls: Path, tmp_path: Path
) -> None:
    _build(checkout)
    lock = checkout / "browser" / "package-lock.json"
    lock.write_text(lock.read_text() + "\n")
    _put_npm(tmp_path / "bin", "#!/bin/sh\nexit 1\n")

    with pytest.raises(SystemExit, match="npm says why"):
        _build(checkout)
    assert (HOOK.vendor(checkout) / "uplot.js").exists()
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.usefixtures("calls")
def test_the_wheel_with_npm_is_asked_for_only_where_it_is_needed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = HOOK.BrowserLibraries(str(checkout), {}, None, None, "", "wheel")
    assert hook.dependencies() == []

    monkeypatch.setenv("PATH", "")
    assert hook.dependencies() == [HOOK.NPM_WHEEL]


def test_the_lock_has_hashes_and_names_no_registry() -> None:
    lock = json.loads((ROOT / "browser" / "package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]

    assert packages
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert "http" not in json.dumps(lock)


def test_what_git_ignores_is_in_the_wheel() -> None:
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}

    vendor = "plexd_server/dashboard/static/vendor"
    assert {f"{vendor}/{name}" for name in HOOK.FILES.values()} <= packed
