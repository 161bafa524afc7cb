"""Charts: gaps and what they say, the range they begin with, their tooltips."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from browser.conftest import report
from support.readings import reading

if TYPE_CHECKING:
    from browser.conftest import Opener, Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_link_that_began_minutes_ago_is_looked_at_closely(
    visit: Opener, rude_site: Site
) -> None:
    await report(rude_site, reading("peer", datetime.now(UTC)))
    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/mesh#peer~rude")
        pressed = page.get_by_role("button", name="15 min")
        await expect(pressed).to_have_attribute("aria-pressed", "true")


GAPS = """async (ends) => {
  const { findGaps, describeGaps, sayings } = await import("/static/gaps.js");
  const minute = 60_000;
  const begin = Date.parse("2026-02-12T10:00:00Z");
  const at = (minutes) => new Date(begin + minutes * minute).toISOString();
  const lines = ends.map(([end, minutes]) => ({
    end, losses: () => [], of: () => ({ times: minutes.map(at), values: minutes }),
  }));
  const gaps = findGaps(lines, { since: at(0), until: at(60), step_seconds: 15 });
  const found = gaps.map((gap) => [(gap.from - begin) / minute, (gap.to - begin) / minute]);
  return [found, gaps.map((gap) => sayings(gap).join(", ")), describeGaps(gaps)];
}"""


def minutes(*without: tuple[float, float], late: float = 0.0) -> list[float]:
    """Each minute of an hour but for those between."""
    return [n + late for n in range(61) if not any(a < n < b for a, b in without)]


@pytest.mark.parametrize(
    ("rome", "oslo", "spans", "told"),
    [
        ([(10, 20)], [], [[10, 20]], ["rome: not reported"]),
        ([(10, 20)], [(10, 20)], [[10, 20]], ["both: not reported"]),
        (
            [(10, 30)],
            [(20, 40)],
            [[10, 20], [20, 30], [30, 40]],
            ["rome: not reported", "both: not reported", "oslo: not reported"],
        ),
        (
            [(10, 20)],
            [(10, 61)],
            [[10, 20], [20, 60]],
            ["rome: not reported, oslo: no report since", "oslo: no report since"],
        ),
    ],
)
async def test_gaps_of_two_ends_are_named_and_do_not_overlap(
    visit: Opener, rome: Any, oslo: Any, spans: Any, told: list[str]
) -> None:
    async with visit("desktop") as visitor:
        ends = [["rome", minutes(*rome)], ["oslo", minutes(*oslo)]]
        found, said, spoken = await visitor.page.evaluate(GAPS, ends)

    assert (found, said) == (spans, told)
    assert all(text in spoken for text in told)


async def test_gaps_that_differ_by_seconds_are_one(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        ends = [["rome", minutes((10, 20))], ["oslo", minutes((10, 20), late=0.2)]]
        found, said, _ = await visitor.page.evaluate(GAPS, ends)

    assert (found, said) == ([[10, 20]], ["both: not reported"])


@pytest.mark.parametrize("look", ["desktop", "phone"])
async def test_labels_of_gaps_stay_within_their_bands(visit: Opener, look: str) -> None:
    async with visit(look) as visitor:
        page = await visitor.open("/mesh#sim-denver~sim-mumbai")
        await page.wait_for_selector(".link canvas")
        chart = page.locator(".link .chart").first
        label = re.compile("sim-mumbai: 264 points lost on the node.*sim-denver: no report since")
        await expect(chart).to_have_attribute("aria-label", label)
        texts, bands = await chart.evaluate(
            """e => [".reason", ".gap"].map((wanted) =>
              [...e.querySelectorAll(wanted)].map((one) => one.getBoundingClientRect().toJSON()))"""
        )
        assert texts
        for text in texts:
            within = [b for b in bands if b["left"] <= text["left"] and text["right"] <= b["right"]]
            assert len(within) == 1
        tops = await page.locator(".link .chart").evaluate_all(
            "all => all.map((e) => e.offsetTop - e.closest('figure').offsetTop)"
        )
        assert max(tops) - min(tops) <= 1


async def test_a_charts_tooltip_says_name_and_number(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-berlin")
        await page.wait_for_selector(".chart canvas")
        await page.locator(".chart").first.hover(position={"x": 200, "y": 80})
        said = page.locator(".pointed-at").first
        await expect(said).to_contain_text(re.compile(r"\d\d:\d\d:\d\d UTC.*CPU: [\d.]+ %"))
