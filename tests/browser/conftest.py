"""A real Chromium on a real server with a simulated mesh in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from plexd.api import MetricBatch
from server.running import Client, Server, create_node, served
from support.processes import ending_with_us

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from playwright.async_api import Browser, ConsoleMessage, Page, Response

    from plexd.api import MetricPoint

Opener = Callable[..., AbstractAsyncContextManager["Visit"]]

CHROMIUM = shutil.which("chromium") or ""
LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@dataclass
class Site:
    """A server, and the token of the one node there that is the tests' own."""

    server: Server
    node: str
    token: str


async def report(site: Site, points: list[MetricPoint]) -> None:
    """Have the site's own node deliver points."""
    async with aiohttp.ClientSession() as session:
        client = Client(session, site.server.url, site.token)
        body = MetricBatch(points).to_json()
        assert (await client.post(f"/v1/nodes/{site.node}/metrics", body)).status == 200


@dataclass
class Visit:
    """A page somebody looks at, and what went wrong while they did."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    async def open(self, path: str) -> Page:
        """Go there and wait until there is something to see."""
        await self.page.goto(self.url + path)
        await self.page.wait_for_selector("[aria-busy=false]")
        return self.page

    def watch(self) -> None:
        """From now on, note whatever a person would find in the browser's console."""
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda err: self.faults.append(f"uncaught: {err}"))
        self.page.on("response", self._receive)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"{message.type}: {message.text}")

    def _receive(self, response: Response) -> None:
        if response.status >= 400 or not response.url.startswith(self.url):
            self.faults.append(f"{response.status}: {response.url}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not CHROMIUM:
        reason = "chromium is not installed: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    data_dir = tmp_path_factory.mktemp("browser") / "data"
    token = create_node(data_dir, "live")["auth_token"]
    with served(data_dir) as server, _reporting_on(server, data_dir):
        yield Site(server, "live", token)


@contextmanager
def _reporting_on(server: Server, data_dir: Path) -> Iterator[None]:
    """While the body runs the simulated mesh reports, after an hour that is told before it."""
    command = [sys.executable, "-m", "plexd_server", "simulate", "--server", server.url]
    command += ["--data-dir", str(data_dir), "--past", "1h"]
    with subprocess.Popen(
        ending_with_us(*command), stdout=subprocess.PIPE, text=True
    ) as simulating:
        assert simulating.stdout is not None
        try:
            assert any(line.startswith("the past is told") for line in simulating.stdout)
            yield
        finally:
            simulating.terminate()
            simulating.communicate(timeout=30)


@pytest.fixture
def rude_site(site: Site, tmp_path: Path) -> Iterator[Site]:
    """A server of its own for a node that reports what it should not."""
    del site  # skips where there is no browser
    token = create_node(tmp_path / "data", "rude")["auth_token"]
    with served(tmp_path / "data") as server:
        yield Site(server, "rude", token)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(site: Site) -> AsyncIterator[Browser]:
    del site  # skips where there is no browser
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield launched
        await launched.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def modules(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """A page of the server, in which its modules can be imported without looking at anything."""
    context = await browser.new_context(timezone_id="UTC")
    page = await context.new_page()
    await page.goto(f"{site.server.url}/login")
    yield page
    await context.close()


@pytest.fixture
def visit(browser: Browser, site: Site) -> Opener:
    """Opens a logged-in browser window of one of the `LOOKS`."""

    @asynccontextmanager
    async def opened(look: str, where: Site = site, **more: Any) -> AsyncIterator[Visit]:
        context = await browser.new_context(**{"timezone_id": "UTC", **LOOKS[look], **more})
        page = await context.new_page()
        found = Visit(page, where.server.url)
        await page.goto(where.server.login)
        await page.wait_for_selector("[aria-busy=false]")
        found.watch()
        yield found
        await context.close()

    return opened
