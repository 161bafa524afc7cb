"""Charts: each measured value can be seen, time goes forward, and what is pointed at is told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from playwright.async_api import expect

from browser.conftest import report
from browser.drawing import drawn, within
from plexd.metrics.testing import system_point
from support.readings import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from playwright.async_api import Locator, Page

    from browser.conftest import Opener, Site
    from plexd.api import MetricPoint

pytestmark = pytest.mark.asyncio(loop_scope="session")

MINUTE = timedelta(minutes=1)


def busy(at: datetime, percent: float, received: int = 0) -> MetricPoint:
    point = system_point(at)
    changed = {"cpu_usage_percent": percent, "network_rx_bytes": received}
    data = msgspec.structs.replace(point.data, **changed)  # type: ignore[type-var]
    return msgspec.structs.replace(point, data=data)


def chart(page: Page, title: str) -> Locator:
    return page.locator("figure", has_text=title).locator(".chart")


async def test_a_value_between_gaps_is_drawn(visit: Opener, rude_site: Site) -> None:
    now = datetime.now(UTC)
    ages = [*range(45, 60), 30, *range(15)]
    points = [busy(now - age * MINUTE, 90 if age == 30 else 10) for age in sorted(ages)[::-1]]
    await report(rude_site, points)

    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/nodes/rude?range=1h")
        cpu = chart(page, "CPU")
        await expect(cpu).to_have_attribute("aria-label", re.compile("2 gaps"))
        columns = await drawn(cpu)
    (top, _), *_ = [rows for rows in columns.values() if rows[0] < 60]
    assert top < 60  # where 90 % is
    assert all(bottom - top < 12 for top, bottom in columns.values())  # no line leads there


async def test_a_new_nodes_first_rate_is_drawn(visit: Opener, rude_site: Site) -> None:
    now = datetime.now(UTC)
    await report(rude_site, [busy(now - MINUTE / 4, 10), busy(now, 20, received=15_000)])

    async with visit("desktop", rude_site) as visitor:
        for wanted in ("15m", "7d"):
            page = await visitor.open(f"/nodes/rude?range={wanted}")
            network = chart(page, "Network")
            await expect(network).to_have_attribute("aria-label", re.compile("received: now"))
            assert await drawn(network), wanted
            assert await drawn(chart(page, "CPU")), wanted


async def test_each_round_trip_of_a_lossy_link_is_drawn(visit: Opener, rude_site: Site) -> None:
    now = datetime.now(UTC)
    for number in range(40):
        rtt = -1 if number % 2 else 20_000_000
        await report(rude_site, reading("peer", now - (40 - number) * MINUTE, rtt_nano=rtt))

    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/mesh#peer~rude")
        trips = chart(page, "Round trip")
        await expect(trips).to_have_attribute("aria-label", re.compile("rude: now 20 ms"))
        columns = sorted(await drawn(trips, line=2))
    dots = 1 + sum(b - a > 1 for a, b in pairwise(columns))
    assert dots == 20


async def test_a_link_that_does_not_answer_shows_since_when(visit: Opener, rude_site: Site) -> None:
    now = datetime.now(UTC)
    for age in range(40, 0, -1):
        lost = age <= 20 or age == 30
        rtt = -1 if lost else 20_000_000
        await report(rude_site, reading("peer", now - age * MINUTE, rtt_nano=rtt))

    async with visit("desktop", rude_site) as visitor:
        page = await visitor.open("/mesh#peer~rude")
        band = chart(page, "Round trip").locator(".gap.unanswered")
        await expect(band).to_have_text("rude: no answer since")  # one lost ping is no outage
        left, right = await within(chart(page, "Round trip"), band)
        whole = await chart(page, "Round trip").locator(".u-over").bounding_box()
        assert whole is not None
        assert (right - left) / whole["width"] == pytest.approx(21 / 60, abs=0.02)
        assert await chart(page, "Loss").locator(".gap").count() == 0


async def test_a_gap_of_one_end_breaks_that_ends_line(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/mesh#sim-berlin~sim-mumbai")
        trips = chart(page, "Round trip")
        left, right = await within(trips, trips.locator(".gap.lost"))
        berlin, mumbai = await drawn(trips, line=1), await drawn(trips, line=2)
    between = range(round(left) + 3, round(right) - 3)
    assert not [x for x in mumbai if x in between]
    assert [x for x in berlin if x in between]


@pytest.mark.parametrize(("wanted", "minutes"), [("24h", 14), ("7d", 90)])
async def test_an_outage_is_not_lost_among_the_buckets(
    visit: Opener, rude_site: Site, wanted: str, minutes: int
) -> None:
    now = datetime.now(UTC)
    span = {"24h": 24, "7d": 7 * 24}[wanted] * 60
    ages = [age for age in range(span - 1, -1, -1) if not 0 < age - span // 3 < minutes]
    points = [busy(now - age * MINUTE, 30) for age in ages]
    for first in range(0, len(points), 2000):
        await report(rude_site, points[first : first + 2000])
    gap = {"since": now - (span // 3 + minutes) * MINUTE, "until": now - span // 3 * MINUTE}

    async def answer(route: Any) -> None:
        found = await route.fetch()
        series = await found.json()
        series.setdefault("gaps", [{end: moment.isoformat() for end, moment in gap.items()}])
        await route.fulfill(response=found, json=series)

    async with visit("desktop", rude_site) as visitor:
        await visitor.page.route("**/series?since*", answer)
        page = await visitor.open(f"/nodes/rude?range={wanted}")
        cpu = chart(page, "CPU")
        await expect(cpu).to_have_attribute("data-gaps", "1")
        left, right = await within(cpu, cpu.locator(".gap"))
        columns = await drawn(cpu)
    assert right - left > 2
    assert not [x for x in columns if left + 1.5 < x < right - 1.5]
    assert min(columns) < left
    assert max(columns) > right + 50


SPRING = datetime(2026, 3, 8, 9, tzinfo=UTC)  # New York: at 07:00 UTC the clock skips an hour
AUTUMN = datetime(2026, 10, 25, 4, tzinfo=UTC)  # Berlin: at 01:00 UTC the clock repeats one


def six_hours(until: datetime) -> Callable[[Any], Any]:
    """Answer with a ramp of six hours, whatever is asked."""
    times = [until - n * MINUTE for n in range(360, -1, -1)]

    async def answer(route: Any) -> None:
        found = await route.fetch()
        series = await found.json()
        ramp = [100 * n / 360 for n in range(361)]
        series |= {"since": times[0].isoformat(), "until": until.isoformat(), "step_seconds": 60}
        series["times"] = [time.isoformat() for time in times]
        for field in series["fields"].values():
            field["avg"] = ramp
        await route.fulfill(response=found, json=series)

    return answer


@pytest.mark.parametrize(
    ("zone", "until"), [("America/New_York", SPRING), ("Europe/Berlin", AUTUMN)]
)
async def test_an_hour_is_an_hour_where_the_clock_is_changed(
    visit: Opener, rude_site: Site, zone: str, until: datetime
) -> None:
    await report(rude_site, [system_point(datetime.now(UTC))])
    async with visit("desktop", rude_site, timezone_id=zone) as visitor:
        await visitor.page.route("**/series?*", six_hours(until))
        page = await visitor.open("/nodes/rude?range=6h")
        columns = await drawn(chart(page, "CPU"))
        width = await chart(page, "CPU").locator(".u-over").evaluate("e => e.clientWidth")
    middle = [sum(rows) / 2 for _, rows in sorted(columns.items())]
    steps = [a - b for a, b in pairwise(middle)]
    assert len(columns) == pytest.approx(width, abs=4)
    assert max(columns) - min(columns) == pytest.approx(width, abs=4)
    assert min(steps) >= 0  # the ramp only rises
    assert max(steps) <= 3


TICKS = """async ([since, until]) => {
  const { timeTicks } = await import("/static/ticks.js");
  const { moments, texts } = timeTicks(Date.parse(since), Date.parse(until), 7);
  return moments.map((moment, i) => [new Date(moment).toISOString().slice(8, 16), texts[i]]);
}"""


@pytest.mark.parametrize(
    ("zone", "until", "hours", "wanted"),
    [
        ("UTC", AUTUMN, 1, ["25T03:00 03:00", "25T03:10 03:10", "25T03:20 03:20"]),
        ("Asia/Kathmandu", AUTUMN, 6, ["24T22:15 04:00", "24T23:15 05:00", "25T00:15 06:00"]),
        ("Europe/Berlin", AUTUMN, 6,
         ["24T22:00 00:00", "24T23:00 01:00", "25T00:00 02:00", "25T01:00 02:00"]),
        ("America/New_York", SPRING, 6,
         ["08T03:00 22:00", "08T04:00 23:00", "08T05:00 00:00", "08T06:00 01:00",
          "08T07:00 03:00"]),
        ("America/New_York", SPRING, 24,
         ["07T09:00 04:00", "07T13:00 08:00", "07T17:00 12:00", "07T21:00 16:00", "08T01:00 20:00",
          "08T05:00 00:00", "08T08:00 04:00"]),
        ("Europe/Berlin", AUTUMN, 7 * 24, ["18T22:00 19 Oct", "19T22:00 20 Oct"]),
    ],
)  # fmt: skip
async def test_ticks_are_round_by_the_local_clock(
    visit: Opener, zone: str, until: datetime, hours: int, wanted: Sequence[str]
) -> None:
    since = until - timedelta(hours=hours)
    async with visit("desktop", timezone_id=zone) as visitor:
        found = await visitor.page.evaluate(TICKS, [since.isoformat(), until.isoformat()])

    assert [" ".join(tick) for tick in found][: len(wanted)] == wanted
    assert 3 <= len(found) <= 8


async def test_what_is_pointed_at_is_told_in_every_chart(visit: Opener) -> None:
    async with visit("desktop", timezone_id="Europe/Berlin") as visitor:
        page = await visitor.open("/nodes/sim-berlin")
        await chart(page, "CPU").hover(position={"x": 200, "y": 80})
        cpu, memory = (chart(page, name).locator(".pointed-at") for name in ("CPU", "Memory"))
        await expect(cpu).to_contain_text(re.compile(r"\d\d:\d\d:\d\d CES?T.*CPU: [\d.]+ %"))
        await expect(memory).to_contain_text(re.compile("used: .* GiB.*total: "))
        await page.mouse.move(5, 5)
        await expect(cpu).to_be_hidden()


async def test_a_gap_that_is_pointed_at_says_why(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-mumbai?range=6h")
        cpu = chart(page, "CPU")
        gap = cpu.locator(".gap.lost")
        await expect(gap).to_have_text("")  # too narrow for words
        left, right = await within(cpu, gap)
        await cpu.hover(position={"x": (left + right) / 2, "y": 80})
        await expect(cpu.locator(".pointed-at")).to_contain_text("264 points lost on the node")


async def test_charts_follow_the_width_and_the_colours(visit: Opener) -> None:
    async with visit("desktop") as visitor:
        page = await visitor.open("/nodes/sim-berlin")
        cpu = chart(page, "CPU")
        before = set(await drawn(cpu))
        await page.set_viewport_size({"width": 420, "height": 900})
        await expect(cpu.locator("canvas")).to_have_js_property("clientWidth", await _width(cpu))
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.emulate_media(color_scheme="dark")
        assert before
        assert await drawn(cpu)  # in the colour of the dark page
        assert visitor.faults == []


async def _width(of: Locator) -> int:
    width: int = await of.evaluate("e => e.clientWidth")
    return width


async def test_a_chart_without_readings_says_so(visit: Opener, rude_site: Site) -> None:
    await report(rude_site, reading("peer", datetime.now(UTC)))
    async with visit("phone", rude_site) as visitor:
        page = await visitor.open("/nodes/rude")
        cpu = chart(page, "CPU")
        await expect(cpu.locator(".no-readings")).to_be_visible()
        await expect(cpu).to_have_attribute("aria-label", re.compile("CPU: no readings"))
        assert await drawn(cpu) == {}

        await report(rude_site, [busy(datetime.now(UTC), 40)])
        await expect(cpu.locator(".no-readings")).to_be_hidden(timeout=15_000)
        assert await drawn(cpu)
        assert visitor.faults == []
