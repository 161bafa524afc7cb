"""What is really drawn on a chart's canvas, found by its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["drawn", "within"]

_COLUMNS = """(chart, line) => {
  const canvas = chart.querySelector("canvas"), { width, height } = canvas;
  const root = getComputedStyle(document.documentElement);
  const hex = root.getPropertyValue(`--line-${line}`).trim();
  const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  const isNear = (v, i, at) => Math.abs(v - data[at + i]) < 12;
  const isLine = (at) => data[at + 3] > 200 && wanted.every((v, i) => isNear(v, i, at));
  const found = [];
  for (let x = 0; x < width; x += 1) {
    const rows = [...Array(height).keys()].filter((y) => isLine(4 * (y * width + x)));
    if (rows.length) found.push([x, rows[0], rows.at(-1)].map((px) => px / devicePixelRatio));
  }
  return found;
}"""


async def drawn(chart: Locator, line: int = 1) -> dict[float, tuple[float, float]]:
    """Return where a line is: of each column of pixels that has some, the top and the bottom."""
    found = await chart.evaluate(_COLUMNS, line)
    return {x: (top, bottom) for x, top, bottom in found}


async def within(chart: Locator, part: Locator) -> tuple[float, float]:
    """Return the columns from which to which a part of the chart reaches."""
    whole, box = await chart.bounding_box(), await part.bounding_box()
    assert whole is not None
    assert box is not None
    return box["x"] - whole["x"], box["x"] + box["width"] - whole["x"]
