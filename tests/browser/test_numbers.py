"""What a person reads off the numbers of the nodes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from playwright.async_api import expect

from browser.conftest import report
from plexd.metrics.testing import system_point
from server.running import command

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Page

    from browser.conftest import Opener, Site
    from plexd.api import MetricPoint

pytestmark = pytest.mark.asyncio(loop_scope="session")


def system(at: datetime, received: int) -> MetricPoint:
    point = system_point(at)
    data = msgspec.structs.replace(point.data, network_rx_bytes=received)  # type: ignore[type-var]
    return msgspec.structs.replace(point, data=data)


async def test_traffic_is_that_of_the_newest_reading_whatever_the_range(
    visit: Opener, rude_site: Site
) -> None:
    now = datetime.now(UTC)
    counters = [(600, 0), (400, 0), (20, 1_000), (10, 1_000), (0, 1_000 + 10 * 2048)]
    await report(rude_site, [system(now - timedelta(seconds=ago), n) for ago, n in counters])

    async with visit("desktop", rude_site) as visitor:
        for wanted in ("15m", "24h", "7d"):
            page = await visitor.open(f"/nodes/rude?range={wanted}")
            received = page.locator(".tile", has_text="Received")
            await expect(received).to_contain_text("2 KiB/s")


async def test_a_silent_nodes_numbers_are_dimmed_and_of_an_age(
    visit: Opener, rude_site: Site
) -> None:
    await report(rude_site, [system_point(datetime.now(UTC))])
    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/nodes/rude")
        colour = "e => getComputedStyle(e).color"
        bright = await page.locator(".tile strong").first.evaluate(colour)
        await expect(page.locator("h2", has_text="Now")).to_be_visible()
        # What the server knows of a node that fell silent, without waiting until it does.
        await page.route("**/latest", _grown_old)
        await page.reload()

        await expect(page.locator("h2", has_text="As of 1 h")).to_be_visible()
        assert await page.locator(".tile strong").first.evaluate(colour) != bright


async def _grown_old(route: Any) -> None:
    answer = await route.fetch()
    latest = await answer.json()
    latest["now"] = (datetime.fromisoformat(latest["now"]) + timedelta(hours=1)).isoformat()
    latest |= {"status": "silent", "reading_seconds": 3600}
    await route.fulfill(response=answer, json=latest)


async def test_a_revoked_node_has_its_history_and_says_so(
    visit: Opener, rude_site: Site, tmp_path: Path
) -> None:
    await report(rude_site, [system_point(datetime.now(UTC))])
    command("node", "revoke", "rude", "--data-dir", tmp_path / "data")

    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/nodes/rude")
        await expect(page.locator("#freshness")).to_contain_text("revoked, this is its history")
        await expect(page.locator(".tile", has_text="CPU")).to_be_visible()


async def test_a_node_there_is_not_is_told(visit: Opener) -> None:
    async with visit("phone") as visitor:
        page = await visitor.open("/nodes/nobody")
        await expect(page.locator("h2")).to_have_text("There is no node nobody")
        await expect(page.locator("#status")).to_be_hidden()
        await page.get_by_role("link", name="All nodes").click()
        await page.wait_for_selector("tr[data-row=sim-berlin]")


async def test_the_processors_line_ends_in_the_number_beside_it(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = visitor.page
        await page.route("**/v1/fleet", _busy)
        await visitor.open("/")
        row = page.locator('tr[data-row="sim-berlin"]')
        await expect(row).to_contain_text("100 %")
        await expect(row).to_contain_text("0.50")
        points = await row.locator("polyline").last.get_attribute("points")
        assert str(points).endswith(",2.0")  # the top


async def test_a_silent_nodes_numbers_are_dimmed_among_the_others(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        await visitor.page.route("**/v1/fleet", _quiet)
        page = await visitor.open("/")
        colours = [
            await page.locator(f'tr[data-row="{name}"] td[data-label="CPU"] span').first.evaluate(
                "e => getComputedStyle(e).color"
            )
            for name in ("sim-berlin", "sim-lima")
        ]
        assert colours[0] != colours[1]


async def _quiet(route: Any) -> None:
    answer = await route.fetch()
    fleet = await answer.json()
    for node in fleet["nodes"]:
        node["status"] = "silent" if node["node_id"] == "sim-berlin" else "up"
    await route.fulfill(response=answer, json=fleet)


async def _busy(route: Any) -> None:
    answer = await route.fetch()
    fleet = await answer.json()
    for node in fleet["nodes"]:
        if node["node_id"] == "sim-berlin":
            node["system"] |= {"cpu_usage_percent": 100.0, "load_avg_1": 0.5}
            node["status"] = "up"
            node["cpu_history"][-1] = None
    await route.fulfill(response=answer, json=fleet)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("bytes(1023)", "1,023 B"),
        ("bytes(1023.9)", "1 KiB"),
        ("bytes(1048575)", "1 MiB"),
        ("bytes(1023.4 * 1024)", "1,023 KiB"),
        ("bytes(2 ** 60 - 1)", "1 EiB"),
        ("bytes(2 ** 70)", "1,024 EiB"),
        ("bytes(0)", "0 B"),
        ("rate(1048575)", "1 MiB/s"),
        ("duration(59.4)", "59 s"),
        ("duration(59.6)", "1 min"),
        ("duration(3569)", "59 min"),
        ("duration(3580)", "1 h"),
        ("duration(3600 + 59.6 * 60)", "2 h"),
        ("duration(3600 + 300)", "1 h 5 min"),
        ("duration(86399)", "1 d"),
        ("duration(2 * 86400 - 60)", "2 d"),
        ("duration(86400 + 7200)", "1 d 2 h"),
        ("duration(-3)", "0 s"),
    ],
)
async def test_a_number_is_rounded_before_its_unit_is_chosen(
    modules: Page, call: str, text: str
) -> None:
    script = f'import("/static/format.js").then(({{ bytes, rate, duration }}) => {call})'
    assert await modules.evaluate(script) == text
