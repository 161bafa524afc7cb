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
    from playwright.async_api import Page

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
    modules: Page, rome: Any, oslo: Any, spans: Any, told: list[str]
) -> None:
    ends = [["rome", minutes(*rome)], ["oslo", minutes(*oslo)]]
    found, said, spoken = await modules.evaluate(GAPS, ends)

    assert (found, said) == (spans, told)
    assert all(text in spoken for text in told)


FOUND = """async ([times, values, known, more]) => {
  const { findGaps, sayings } = await import("/static/gaps.js");
  const begin = Date.parse("2026-02-12T10:00:00Z");
  const at = (minutes) => new Date(begin + minutes * 60_000).toISOString();
  const gaps = known?.map(([since, until]) => ({ since: at(since), until: at(until) }));
  const newest = more.newest === undefined ? undefined : at(more.newest);
  const series = { ...more, newest, times: times.map(at), values, gaps };
  const line = { losses: () => [], of: () => series, unanswered: more.unanswered };
  const data = { since: at(0), until: at(60), step_seconds: 360 };
  const minute = (moment) => Math.round((moment - begin) / 6000) / 10;
  return findGaps([line], data).map((gap) => [minute(gap.from), minute(gap.to), ...sayings(gap)]);
}"""
BUCKETS = [0, 6, 12, 18, 24, 30, 36, 42, 48, 54]


@pytest.mark.parametrize(
    ("missing", "gaps", "more", "found"),
    [
        ({18}, [], {}, []),  # read each ten minutes
        ({18}, [[13.5, 27.5]], {}, [[13.5, 27.5, "not reported"]]),
        ({18, 42}, [[13.5, 27.5], [41, 48]], {},
         [[13.5, 27.5, "not reported"], [41, 48, "not reported"]]),
        (set(), [[12.1, 23.9]], {}, [[12.1, 23.9, "not reported"]]),  # no bucket is empty
        ({0}, [[-90, 7]], {}, [[0, 7, "not reported"]]),
        ({48, 54}, [], {"newest": 47.5, "silentAfter": 150}, [[47.5, 60, "no report since"]]),
        ({54}, [], {"newest": 53.9, "silentAfter": 750}, []),
        ({48, 54}, [], {"newest": 47.5, "status": "up"}, [[47.5, 60, "no reading since"]]),
        ({48, 54}, [], {"silentAfter": 750}, [[42, 60, "no report since"]]),
        ({48, 54}, None, {}, [[42, 60, "no report since"]]),
    ],
)  # fmt: skip
async def test_gaps_are_those_of_the_readings_not_of_the_buckets(
    modules: Page, missing: set[int], gaps: Any, more: Any, found: Any
) -> None:
    times = [minute for minute in BUCKETS if minute not in missing]
    script = [times, [1] * len(times), gaps, more]
    assert await modules.evaluate(FOUND, script) == found


@pytest.mark.parametrize(
    ("values", "gaps", "found"),
    [
        ([1, None, 1, None, 1], [], [[0, 12, "no answer"], [12, 24, "no answer"]]),
        ([1, 1, None, None, None], [], [[6, 60, "no answer since"]]),
        ([None, None, 1, 1, 1], [], [[0, 12, "no answer"]]),
        ([1, None, None, None, 1], [[12.5, 19]],
         [[12.5, 19, "not reported"], [0, 12, "no answer"], [18, 24, "no answer"]]),
    ],
)  # fmt: skip
async def test_what_was_not_answered_does_not_reach_beyond_a_gap(
    modules: Page, values: Any, gaps: Any, found: Any
) -> None:
    script = [BUCKETS[: len(values)], values, gaps, {"unanswered": True, "newest": 60}]
    assert await modules.evaluate(FOUND, script) == found


async def test_gaps_that_differ_by_seconds_are_one(modules: Page) -> None:
    ends = [["rome", minutes((10, 20))], ["oslo", minutes((10, 20), late=0.2)]]
    found, said, _ = await modules.evaluate(GAPS, ends)

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
