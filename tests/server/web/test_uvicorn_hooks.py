from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from plexd_server.errors import StartError
from plexd_server.web import protocol, server
from plexd_server.web.uvicorn_hooks import HOOKS, _names_of, check_uvicorn

if TYPE_CHECKING:
    from pathlib import Path

CHANGED = """
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
del HttpToolsProtocol.send_400_response
from plexd_server.cli.main import main
raise SystemExit(main())
"""
NAMES = [(owner, name) for owner, names in HOOKS.items() for name in names]


def test_the_installed_uvicorn_has_every_hook() -> None:
    check_uvicorn()


@pytest.mark.parametrize(("owner", "hook"), NAMES)
def test_a_uvicorn_without_a_hook_is_refused_with_the_hook_s_name_and_what_to_do(
    owner: type, hook: str
) -> None:
    changed = type("Changed", (), dict.fromkeys(set(HOOKS[owner]) - {hook}))

    with pytest.raises(StartError, match=rf"Changed has no {hook}; install .* pip install"):
        check_uvicorn({changed: HOOKS[owner]})


@pytest.mark.slow
def test_the_server_refuses_to_start_on_a_uvicorn_without_a_hook(tmp_path: Path) -> None:
    line = [sys.executable, "-c", CHANGED, "serve", "--listen", "127.0.0.1:0"]
    line += ["--data-dir", str(tmp_path / "d")]

    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)

    assert (done.returncode, done.stdout) == (1, "")
    assert "HttpToolsProtocol has no send_400_response; install" in done.stderr
    assert not (tmp_path / "d").exists()


def test_an_attribute_that_objects_get_when_they_are_made_is_found() -> None:
    class Changed:
        def __init__(self) -> None:
            self.connections = set[Any]()

    with pytest.raises(StartError, match="no pipeline;"):
        check_uvicorn({Changed: ["connections", "pipeline"]})


def test_a_callback_that_only_asyncio_defines_is_no_hook_of_uvicorn() -> None:
    class Renamed(asyncio.Protocol):
        pass

    with pytest.raises(StartError, match="data_received"):
        check_uvicorn({Renamed: ["data_received"]})


@pytest.mark.parametrize(
    ("ours", "uvicorns"),
    [
        (protocol.BoundedProtocol, HttpToolsProtocol),
        (server._SignalFreeServer, Server),
    ],
)
def test_whatever_our_classes_override_or_use_of_uvicorn_is_checked(
    ours: type, uvicorns: type
) -> None:
    tree = ast.parse(inspect.getsource(sys.modules[ours.__module__]))
    body = next(each for each in tree.body if getattr(each, "name", "") == ours.__name__)
    attributes = [each for each in ast.walk(body) if _is_of_self_or_super(each)]
    set_by_us = {each.attr for each in attributes if isinstance(each.ctx, ast.Store)}
    used = {each.attr for each in attributes} - set_by_us
    hooks = (used | set(vars(ours))) & _names_of(uvicorns) - {"__init__", "__doc__", "__module__"}

    assert used <= _names_of(uvicorns) | set(vars(ours)) | {"__init__"}
    assert hooks <= set(HOOKS[uvicorns])


def _is_of_self_or_super(each: ast.AST) -> TypeGuard[ast.Attribute]:
    if not isinstance(each, ast.Attribute):
        return False
    owner = each.value.func if isinstance(each.value, ast.Call) else each.value
    return isinstance(owner, ast.Name) and owner.id in {"self", "super"}
