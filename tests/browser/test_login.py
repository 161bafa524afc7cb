"""Logging in and out, as a person does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

if TYPE_CHECKING:
    from browser.conftest import Opener, Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_earlier_login_link_is_explained_with_this_servers_address(
    visit: Opener, site: Site
) -> None:
    async with visit("phone") as visitor:
        await visitor.page.goto(f"{site.server.url}/login?token=old")
        await expect(visitor.page.locator(".empty")).to_contain_text("an earlier start")
        await expect(visitor.page.locator("code", has_text="/login")).to_have_text(
            f"{site.server.url}/login?token=…"
        )


@pytest.mark.parametrize("path", ["/", "/mesh", "/nodes/sim-berlin"])
async def test_one_can_log_out(visit: Opener, path: str) -> None:
    async with visit("phone") as visitor:
        page = await visitor.open(path)
        await page.get_by_role("button", name="Log out").click()
        await expect(page.locator("h1")).to_have_text("Log in")
        assert await page.context.cookies() == []
