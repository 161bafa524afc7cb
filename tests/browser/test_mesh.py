"""The mesh page: its colours and legend, names of any length, links there are not."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

import plexd_server.dashboard
from browser.conftest import report
from plexd.metrics.testing import system_point
from support.readings import reading

if TYPE_CHECKING:
    from browser.conftest import Opener, Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

PEER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
STYLE = Path(plexd_server.dashboard.__file__).parent / "static" / "app.css"


async def test_a_link_there_is_not_is_told_until_another_is_chosen(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh#berlin~nobody")
        notice = page.locator(".notice")
        await expect(notice).to_have_text("There is no link berlin~nobody here.")
        await page.get_by_role("link", name="sim-lima ↔ sim-oslo").click()
        await expect(notice).to_be_hidden()


async def test_a_key_for_a_name_fits_everywhere_and_leads_nowhere(
    visit: Opener, rude_site: Site
) -> None:
    now = datetime.now(UTC)
    long = "W" * 44
    await report(rude_site, [system_point(now), *reading(PEER, now), *reading(long, now)])

    for look in ("desktop", "phone"):
        async with visit(look, rude_site) as visitor:
            page = await visitor.open("/mesh")
            await page.locator("table.links a", has_text=long).click()
            await page.wait_for_selector(".link canvas")
            cards = page.locator(".link figure")
            for card in await cards.all():
                assert await card.evaluate("e => e.scrollWidth <= e.clientWidth")
            name = page.locator(".views .name", has_text=long)
            await expect(name).to_have_attribute("title", long)
            assert await name.evaluate("e => e.scrollWidth > e.clientWidth")
            assert await page.locator(".views thead a").all_inner_texts() == ["rude"]
            cell = page.locator(".readout")
            assert await cell.evaluate("e => e.scrollWidth <= e.clientWidth")
            assert visitor.faults == []


@pytest.mark.parametrize("mode", ["Round trip", "Loss", "State"])
async def test_every_kind_of_cell_is_in_the_legend(visit: Opener, mode: str) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh")
        await page.get_by_role("button", name=mode, exact=True).click()
        shown = await page.locator(".squares li").all_inner_texts()

    wanted = ["idle", "unknown", "stale", "never", "one-way", "down", "does not read"]
    assert [text for text in wanted if not any(one.startswith(text) for one in shown)] == []
    signs = [
        one.removeprefix(text) for text in wanted[:-1] for one in shown if one.startswith(text)
    ]
    assert all(signs)
    assert len(set(signs)) == len(wanted) - 1


def _lab(colour: str) -> tuple[float, float, float]:
    """The colour in CIELAB, in which distances are about as large as they look."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in parts]
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("state", ["stale", "never", "one-way"])
async def test_a_states_colour_is_not_that_of_a_number(state: str) -> None:
    light, dark = STYLE.read_text().split("prefers-color-scheme: dark", 1)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--((?:heat|state)-[\w-]+): (#\w{6})", scheme))
        own = _lab(colours[f"state-{state}"])
        for step in range(6):
            assert math.dist(own, _lab(colours[f"heat-{step}"])) > 30
