"""What a person meets: every page on every kind of screen, by mouse and by keyboard."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest
from playwright.async_api import expect

from browser.conftest import LOOKS, Opener, Site, report
from browser.drawing import drawn, within
from plexd.metrics.testing import system_point
from support.readings import reading

if TYPE_CHECKING:
    from playwright.async_api import Page


# One browser for all of them, which needs one event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ["/", "/mesh", "/mesh#sim-berlin~sim-tokyo", "/nodes/sim-mumbai", "/nodes/live"]

# What a screen reader needs, as the axe rules of the same kind ask for it.
NEEDS = """() => {
  const found = [];
  const named = (e) => (e.getAttribute("aria-label") ?? e.textContent ?? "").trim()
    || e.labels?.length || e.querySelector("img[alt]");
  const seen = (e) => e.getClientRects().length > 0;
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  let level = 1;
  for (const h of [...document.querySelectorAll("h1,h2,h3,h4")].filter(seen)) {
    if (Number(h.tagName[1]) > level + 1) found.push(`heading skips: ${h.textContent}`);
    level = Number(h.tagName[1]);
  }
  for (const e of document.querySelectorAll("a,button,input,select,canvas")) {
    if (!named(e)) found.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of document.querySelectorAll("img:not([alt])")) found.push(`no alt: ${e.src}`);
  for (const t of document.querySelectorAll("table")) {
    if (!t.caption || !t.tHead) found.push("a table without caption or headings");
    for (const th of t.querySelectorAll("th")) if (!th.scope) found.push("a heading of nothing");
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const twice = ids.filter((id, i) => id && ids.indexOf(id) !== i);
  if (twice.length) found.push(`ids twice: ${twice}`);
  if (!document.documentElement.lang) found.push("no language");
  if (document.documentElement.scrollWidth > innerWidth) found.push("wider than the screen");
  return found;
}"""

# WCAG contrast of every text against what is painted behind it.
CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = new Set();
  for (const e of document.querySelectorAll("main *, header *")) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || e.closest("svg, .hidden, canvas") || !e.getClientRects().length) continue;
    const [a, b] = [parse(getComputedStyle(e).color), behind(e)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(`${e.className || e.tagName} ${ratio.toFixed(2)}`);
  }
  return [...poor];
}"""


@pytest.mark.parametrize("look", LOOKS)
async def test_every_page_is_sound_on_every_screen(visit: Opener, look: str) -> None:
    async with visit(look) as visitor:
        for path in PAGES:
            page = await visitor.open(path)
            if path.startswith(("/nodes/sim", "/mesh#")):
                await page.wait_for_selector(".chart canvas")
            assert await page.evaluate(NEEDS) == [], path
            assert await page.evaluate(CONTRAST) == [], path
        assert visitor.faults == []


async def test_a_new_report_shows_without_a_reload(visit: Opener, site: Site) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/")
        await page.evaluate("window.isTheSamePage = true")
        row = page.locator('tr[data-row="live"]')
        await expect(row).to_contain_text("waiting")

        await _report_cpu(site, 87.5)

        await expect(row).to_contain_text("87.5 %", timeout=15_000)
        await expect(row).to_contain_text("up")
        assert await page.evaluate("window.isTheSamePage")


async def _report_cpu(site: Site, percent: float) -> None:
    point = system_point(datetime.now(UTC))
    stats = msgspec.structs.replace(point.data, cpu_usage_percent=percent)  # type: ignore[type-var]
    await report(site, [msgspec.structs.replace(point, data=stats)])


async def test_a_gap_is_drawn_as_one_with_its_reason(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-mumbai")
        chart = page.locator("figure", has_text="CPU").locator(".chart")

        await expect(chart).to_have_attribute(
            "aria-label", re.compile("264 points lost on the node")
        )
        # On a busy machine the simulation may be late, which is a gap of its own.
        await expect(chart.locator(".gap")).not_to_have_count(0)
        lost = chart.locator(".gap.lost", has_text="264 points lost on the node")
        await expect(lost).to_have_count(1)
        columns = await drawn(chart)
        left, right = await within(chart, lost)
        assert [x for x in columns if left + 2 < x < right - 2] == []
        assert [x for x in columns if x < left]
        await expect(page.locator("section", has_text="Completeness")).to_contain_text("264 lost")


async def test_a_node_that_fell_silent_has_a_gap_up_to_now(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-denver")
        chart = page.locator("figure", has_text="CPU").locator(".chart")

        await expect(chart).to_have_attribute("aria-label", re.compile("no report since"))


async def test_the_range_is_chosen_and_kept_in_the_address(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-berlin")
        await page.get_by_role("button", name="6 h").click()

        await expect(page).to_have_url(re.compile(r"\?range=6h$"))
        await page.reload()
        await expect(page.get_by_role("button", name="6 h")).to_have_attribute(
            "aria-pressed", "true"
        )


async def test_a_node_that_began_minutes_ago_is_looked_at_closely(
    visit: Opener, rude_site: Site
) -> None:
    await report(rude_site, [system_point(datetime.now(UTC))])
    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/nodes/rude")

        await expect(page.get_by_role("button", name="15 min")).to_have_attribute(
            "aria-pressed", "true"
        )
        assert visitor.faults == []


async def test_the_fleet_is_sorted_by_the_keyboard(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/")
        heading = page.locator("th", has=page.get_by_role("button", name="Disk"))
        await heading.get_by_role("button").focus()
        await page.keyboard.press("Enter")

        await expect(heading).to_have_attribute("aria-sort", "descending")
        await expect(page.locator("tbody tr").first).to_contain_text("sim-nairobi")
        await page.keyboard.press("Enter")
        await expect(heading).to_have_attribute("aria-sort", "ascending")


async def test_the_matrix_is_walked_and_a_link_opened_by_the_keyboard(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh")
        await page.locator("canvas").focus()
        readout = page.locator("#matrix-cell")
        await expect(readout).to_contain_text("sim-berlin reads sim-boston")

        await page.keyboard.press("ArrowRight")
        await expect(readout).to_contain_text("sim-berlin reads sim-denver")
        await page.keyboard.press("ArrowDown")
        await expect(readout).to_contain_text("sim-boston reads sim-denver")
        await page.keyboard.press("Enter")

        await expect(page.locator("#link-title")).to_have_text("sim-boston ↔ sim-denver")
        await expect(page.locator("#link-title")).to_be_focused()
        await expect(page.locator(".link .chart canvas").first).to_be_visible()


async def test_a_cell_is_opened_by_a_click_and_has_both_ends(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh")
        box = await page.locator("canvas").bounding_box()
        assert box is not None
        await page.mouse.click(box["x"] + box["width"] - 20, box["y"] + box["height"] - 50)

        await expect(page.locator("#link-title")).to_be_visible()
        await expect(page).to_have_url(re.compile("/mesh#sim-"))
        names = await page.locator(".views thead th a").all_inner_texts()
        assert len(names) == 2
        charts = page.locator(".link .chart")
        await expect(charts.first).to_have_attribute("aria-label", re.compile(names[0]))
        await expect(charts.first).to_have_attribute("aria-label", re.compile(names[1]))


async def test_one_sided_silence_is_told_from_both_ends(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh#sim-lima~sim-oslo")

        await expect(page.locator(".link")).to_contain_text(
            "sim-lima hears sim-oslo, but sim-oslo does not hear sim-lima"
        )


async def test_the_keyboard_gets_everywhere_and_shows_where_it_is(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/")
        await page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
        reached = [await _tab(page) for _ in range(8)]

        assert reached[:4] == ["Skip to the numbers", "plexd", "Nodes", "Mesh"]
        assert all(reached)


async def _tab(page: Page) -> str:
    """What Tab leads to; empty if it does not show."""
    await page.keyboard.press("Tab")
    text: str = await page.evaluate(
        """() => {
          const e = document.activeElement, style = getComputedStyle(e);
          return style.outlineStyle !== "none" ? e.textContent.trim() || e.ariaLabel : "";
        }"""
    )
    return text


async def test_what_is_simulated_says_so_everywhere(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        for path in ("/", "/mesh", "/nodes/sim-berlin"):
            page = await visitor.open(path)
            await expect(page.get_by_text("simulated", exact=True).first).to_be_visible()


async def test_an_unknown_address_is_a_page_that_leads_on(visit: Opener) -> None:
    async with visit("phone") as visitor:
        for path in ("/none", "/nodes/..%2f"):
            answer = await visitor.page.goto(visitor.url + path)
            assert answer is not None
            assert answer.status == 404
            await expect(visitor.page.locator("h1")).to_have_text("There is no such page")
        await visitor.page.get_by_role("link", name="All nodes").click()
        await visitor.page.wait_for_selector("[aria-busy=false]")


async def test_an_address_for_programs_is_told_on_a_page(visit: Opener) -> None:
    async with visit("phone") as visitor:
        answer = await visitor.page.goto(f"{visitor.url}/v1/register")
        assert answer is not None
        assert answer.status == 405
        await expect(visitor.page.locator("h1")).to_have_text("Method Not Allowed")
        assert await visitor.page.evaluate(NEEDS) == []
        assert await visitor.page.evaluate(CONTRAST) == []


RUDE = [
    "<img src=x onerror=alert(1)>",
    "a~b n1",
    '"><script>1</script>',
    "%ff#?&",
    "x" * 256,
    "\U0001f600\u202eabc",
]


async def test_names_that_a_node_made_up_are_only_text(visit: Opener, rude_site: Site) -> None:
    now = datetime.now(UTC)
    points = [point for peer in RUDE for point in reading(peer, now)]
    await report(rude_site, [system_point(now), *points])

    async with visit("phone", rude_site) as visitor:
        for path in ("/mesh", "/nodes/rude"):
            page = await visitor.open(path)
            for peer in RUDE:
                await expect(page.locator("tr", has_text=peer).first).to_be_visible()
            assert await page.evaluate(NEEDS) == [], path
        links = visitor.page.locator("table.peers tbody th a")
        for href in [await links.nth(number).get_attribute("href") for number in (0, 3)]:
            page = await visitor.open(str(href))
            await page.wait_for_selector(".link canvas")
        assert visitor.faults == []


async def test_an_address_that_was_garbled_shows_the_mesh(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        for garbled in ("%", "%ff", "none~nobody", "<b>"):
            page = await visitor.open(f"/mesh#{garbled}")
            await expect(page.locator("canvas")).to_be_visible()
            await expect(page.locator(".link")).to_be_hidden()
        assert visitor.faults == []


async def test_a_server_that_is_gone_is_told_and_the_numbers_stay(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/")
        await page.route("**/v1/fleet", lambda route: route.abort())

        await expect(page.locator("#status")).to_have_text(
            re.compile("does not answer"), timeout=15_000
        )
        await expect(page.locator('tr[data-row="sim-berlin"]')).to_be_visible()
