"""Takes the pictures in docs/images from a running demo, with Debian's chromium.

``make screenshots`` runs it. The demo runs for some minutes first, so that its own node has a
history and the simulated node that fell silent counts as silent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SECONDS_OF_DATA = 200
CHROMIUM = shutil.which("chromium") or ""
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 1000}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 1000},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
# Name, path, what to wait for, screen, and the height at which a tall page is cut.
SHOTS: list[tuple[str, str, str, dict[str, Any], int]] = [
    ("fleet", "/", ".spark", DESKTOP, 1180),
    ("mesh", "/mesh", "canvas", DESKTOP, 860),
    ("mesh-dark", "/mesh", "canvas", {**DESKTOP, "color_scheme": "dark"}, 860),
    ("mesh-phone", "/mesh", "canvas", PHONE, 1000),
    ("link", "/mesh#sim-berlin~sim-tokyo", ".link canvas", DESKTOP, 850),
    ("node", "/nodes/sim-mumbai", ".chart canvas", DESKTOP, 1060),
    ("node-dark", "/nodes/sim-mumbai", ".chart canvas", {**DESKTOP, "color_scheme": "dark"}, 1060),
    ("node-phone", "/nodes/sim-mumbai", ".chart canvas", PHONE, 1500),
]


def shoot(browser: Browser, login: str, shot: tuple[str, str, str, dict[str, Any], int]) -> None:
    """Take one picture of one page, in a new window."""
    name, path, wanted, look, height = shot
    look = {**look, "viewport": {**look["viewport"], "height": height}}
    context = browser.new_context(**look)
    page = context.new_page()
    page.goto(login)
    page.wait_for_selector("[aria-busy=false]")
    page.goto(login.partition("/login")[0] + path)
    page.wait_for_selector(wanted)
    page.wait_for_timeout(1500)  # charts settle
    if "#" not in path:
        page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=IMAGES / f"{name}.png")
    context.close()


def main() -> None:
    """Run the demo, wait for data, take every picture."""
    if not CHROMIUM:
        sys.exit("chromium is not installed: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "plexd", "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        banner = "".join(demo.stdout.readline() for _ in range(5))
        login = re.search(r"dashboard +(\S+)", banner)
        assert login is not None
        print(f"gathering {SECONDS_OF_DATA} s of data", flush=True)
        time.sleep(SECONDS_OF_DATA)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for shot in SHOTS:
                shoot(browser, login[1], shot)
            browser.close()
        demo.terminate()


main()
