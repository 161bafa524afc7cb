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


async def test_the_page_that_was_asked_for_comes_after_logging_in(
    visit: Opener, site: Site
) -> None:
    async with visit("phone") as visitor:
        page, asked = visitor.page, f"{site.server.url}/nodes/sim-berlin?range=7d"
        await page.context.clear_cookies()
        await page.goto(asked)
        await expect(page.locator("h1")).to_have_text("Log in")
        await page.goto(site.server.login)
        await expect(page).to_have_url(asked)


async def test_a_log_out_that_is_refused_says_so(visit: Opener) -> None:
    async with visit("phone") as visitor:
        page = await visitor.open("/mesh")
        detail = '{"detail": "this page may not do that: it is of another origin"}'
        await page.route("**/logout", lambda route: route.fulfill(status=403, body=detail))
        await page.get_by_role("button", name="Log out").click()
        await expect(page.locator("#status")).to_contain_text("Not logged out: this page may not")
        assert page.url.endswith("/mesh")
