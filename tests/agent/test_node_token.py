"""Where the running agent reads a newer token, and how it uses it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from plexd import api, metrics
from plexd.agent import app
from plexd.agent.config.settings import Settings, WireGuardSettings, load_settings
from plexd.agent.errors import IdentityError, SettingsError
from plexd.agent.identity import FILE_NAME, Identity, save_identity
from plexd.agent.node_token import token_reader, with_token
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

NODE = "node-1"
IDENTITY = Identity(
    node_id=NODE, mesh_ip="", node_secret_key="0123456789abcdef" * 2, auth_token="first"
)


def config_file(folder: Path, token: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"api:\n  base_url: https://plane.example\n  auth_token: {token}\n")
    return path


def test_a_token_of_the_identity_is_read_from_the_identity(tmp_path: Path) -> None:
    read = token_reader(Settings(), NODE, tmp_path / FILE_NAME)
    assert read is not None
    for token in ("first", "second"):
        save_identity(tmp_path, replace_token(token))
        assert read() == token


def replace_token(token: str, node_id: str = NODE) -> Identity:
    return Identity(node_id, "", IDENTITY.node_secret_key, token)


def test_an_identity_that_has_become_another_nodes_gives_no_token(tmp_path: Path) -> None:
    read = token_reader(Settings(), NODE, tmp_path / FILE_NAME)
    assert read is not None
    save_identity(tmp_path, replace_token("other-canary", "node-2"))
    with pytest.raises(IdentityError, match="now that of node-2; restart") as caught:
        read()
    assert "canary" not in str(caught.value)


def test_an_identity_open_to_others_gives_no_token(tmp_path: Path) -> None:
    read = token_reader(Settings(), NODE, tmp_path / FILE_NAME)
    assert read is not None
    save_identity(tmp_path, IDENTITY)
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(IdentityError, match="open to others"):
        read()


def test_a_token_of_the_configuration_is_read_from_the_configuration(tmp_path: Path) -> None:
    path = config_file(tmp_path, "first")
    read = token_reader(load_settings(path, {}), NODE, tmp_path / FILE_NAME)
    assert read is not None
    config_file(tmp_path, "second")
    assert read() == "second"
    path.write_text("api:\n  base_url: https://plane.example\n")
    with pytest.raises(SettingsError, match="no longer set"):
        read()
    path.write_text("api: {{{")
    with pytest.raises(SettingsError, match=r"config\.yaml:1"):
        read()


def test_a_token_of_the_environment_is_not_read_again(tmp_path: Path) -> None:
    path = config_file(tmp_path, "in-the-file")
    settings = load_settings(path, {"PLEXD_API_AUTH_TOKEN": "in-the-environment"})
    assert token_reader(settings, NODE, tmp_path / FILE_NAME) is None


def of_file(path: Path) -> Settings:
    return load_settings(None, {"PLEXD_API_AUTH_TOKEN_FILE": str(path)})


@pytest.mark.parametrize("content", ["first", "first\n", "first\r\n", "\ufefffirst\n"])
def test_a_token_of_a_file_outranks_the_identitys_and_is_read_again(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content, "utf-8", newline="")
    settings = of_file(path)
    assert with_token(replace_token("other"), settings).auth_token == "first"
    read = token_reader(settings, NODE, tmp_path / FILE_NAME)
    assert read is not None
    path.write_text("second")
    assert read() == "second"


def test_without_a_token_file_the_identity_keeps_its_token() -> None:
    assert with_token(IDENTITY, Settings()) == IDENTITY


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"canary\n\n", "must be printable ASCII without spaces (the value is not shown)"),
        (b"canary other", "must be printable ASCII without spaces (the value is not shown)"),
        ("canary".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        (b"canary\xff", "it is not UTF-8 text"),
        (b"canary\0", "must be printable ASCII without spaces (the value is not shown)"),
        (b"canary" * 20_000, "is larger than 64KiB, which no token is"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_without_a_token_is_named_and_its_content_is_not_shown(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        with_token(IDENTITY, of_file(path))
    start = f"PLEXD_API_AUTH_TOKEN_FILE: api.auth_token_file: {path}: {reason}"
    assert str(caught.value).startswith(start)
    assert "canary" not in str(caught.value)


def test_something_else_in_the_place_of_a_token_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    for path in (tmp_path, tmp_path / "token"):
        with pytest.raises(SettingsError, match="is not a regular file"):
            with_token(IDENTITY, of_file(path))


@pytest.mark.parametrize("has_file", [False, True])
async def test_a_running_agent_uses_a_new_token_in_its_identity_or_file(
    tmp_path: Path, *, has_file: bool
) -> None:
    save_identity(tmp_path, IDENTITY)
    token_file = tmp_path / "token"
    token_file.write_text("first\n")
    accepted = asyncio.Event()

    async def judge(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["Authorization"] != "Bearer second":
            token_file.write_text("second\n")
            if not has_file:
                save_identity(tmp_path, replace_token("second"))
            return web.Response(status=401)
        accepted.set()
        return web.Response()

    async with ScriptedServer(judge) as plane:
        settings = Settings(
            data_dir=None,
            api=api.Config(plane.url),
            auth_token_file=token_file if has_file else None,
            wireguard=WireGuardSettings(interface=""),
            metrics=replace(
                metrics.Config(),
                collect_interval=timedelta(milliseconds=400),
                report_interval=timedelta(milliseconds=50),
            ),
        )
        read = token_reader(settings, NODE, tmp_path / FILE_NAME)
        identity = with_token(IDENTITY, settings)
        agent = asyncio.create_task(app.run(settings, identity, read_token=read))
        async with asyncio.timeout(20):
            await accepted.wait()
        agent.cancel()
        await asyncio.wait([agent])
