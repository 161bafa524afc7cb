"""What every `SecretFetcher` promises: the control plane's client and the shipped fake."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from aiohttp import web

from plexd.api import APIError, Config, ControlPlane, SecretResponse
from plexd.metrics import SecretFetcher
from plexd.metrics.testing import ScriptedFetcher
from plexd.nodeapi import decrypt_secret, seal_secret
from support.servers import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.usefixtures("nothing_leaks", "few_authorities")

NSK = b"0123456789abcdef0123456789abcdef"
NODE = "node-1"
SECRETS = {"local": "local token", "odd/key ü": "geheim ü", "empty": ""}


async def hand_out(request: web.BaseRequest) -> web.StreamResponse:
    """The control plane's side: seals for the node, refuses what it does not have."""
    key = unquote(request.raw_path.removeprefix(f"/v1/nodes/{NODE}/secrets/"))
    if key not in SECRETS:
        return web.json_response({"detail": f"no secret {key}"}, status=404)
    ciphertext, nonce = seal_secret(NSK, SECRETS[key])
    return web.Response(
        body=json.dumps(
            {"key": key, "ciphertext": ciphertext, "nonce": nonce, "version": 1}
        ).encode()
    )


@pytest.fixture(params=["ControlPlane", "ScriptedFetcher"])
async def fetcher(request: pytest.FixtureRequest) -> AsyncIterator[SecretFetcher]:
    if request.param == "ScriptedFetcher":
        yield ScriptedFetcher(NSK, SECRETS)
        return
    async with (
        ScriptedServer(hand_out) as server,
        ControlPlane(Config(server.url, auth_token="token")) as plane,
    ):
        yield plane


def test_it_satisfies_the_port(fetcher: SecretFetcher) -> None:
    assert isinstance(fetcher, SecretFetcher)


@pytest.mark.parametrize("key", SECRETS)
async def test_a_secret_comes_sealed_for_the_node(fetcher: SecretFetcher, key: str) -> None:
    sealed = await fetcher.fetch_secret(NODE, key)
    assert type(sealed) is SecretResponse
    assert sealed.key == key
    assert sealed.version == 1
    assert decrypt_secret(NSK, sealed.ciphertext, sealed.nonce) == SECRETS[key]
    assert not SECRETS[key] or SECRETS[key] not in repr(sealed)


async def test_each_fetch_is_an_envelope_of_its_own(fetcher: SecretFetcher) -> None:
    first, second = [await fetcher.fetch_secret(NODE, "local") for _ in range(2)]
    assert first.nonce != second.nonce
    assert first.ciphertext != second.ciphertext


async def test_a_secret_that_is_not_there_is_a_404(fetcher: SecretFetcher) -> None:
    with pytest.raises(APIError, match="no secret nonesuch") as caught:
        await fetcher.fetch_secret(NODE, "nonesuch")
    assert caught.value.status_code == 404


async def test_concurrent_fetches_each_get_their_own(fetcher: SecretFetcher) -> None:
    fetched = await asyncio.gather(*[fetcher.fetch_secret(NODE, key) for key in SECRETS])
    assert [sealed.key for sealed in fetched] == list(SECRETS)
