"""Takes the pictures in docs/images from a running demo, with Debian's chromium.

``make screenshots``. The demo runs for four minutes, so that its charts have something to show.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SECONDS_OF_DATA = 240
CHROMIUM = shutil.which("chromium") or ""
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
SHOTS = {
    "node.png": ("1280,1080", []),
    "node-dark.png": ("1280,1080", ["--blink-settings=preferredColorScheme=0"]),
    "node-phone.png": ("500,1500", []),
}


def shoot(url: str, name: str, size: str, options: list[str]) -> None:
    """One picture of one page, with a browser profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                CHROMIUM,
                *QUIET,
                *options,
                f"--user-data-dir={profile}",
                f"--window-size={size}",
                "--virtual-time-budget=8000",
                f"--screenshot={IMAGES / name}",
                url,
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )


def main() -> None:
    """Run the demo, wait for data, take every picture."""
    if not CHROMIUM:
        sys.exit("chromium is not installed: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "plexd", "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        banner = "".join(demo.stdout.readline() for _ in range(4))
        login = re.search(r"dashboard +(\S+)", banner)
        assert login is not None
        print(f"gathering {SECONDS_OF_DATA} s of data", flush=True)
        time.sleep(SECONDS_OF_DATA)
        for name, (size, options) in SHOTS.items():
            shoot(login[1], name, size, options)
        demo.terminate()


main()
