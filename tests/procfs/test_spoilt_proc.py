"""The whole program over a ``/proc`` in which something is wrong."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 and "CI" not in os.environ, reason="mounting over /proc needs root"
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stat", "meminfo", "loadavg"])
@pytest.mark.parametrize("said", [b"", b"\0garbage 1 2 x\n", b"cpu  -1 -1 -1 -1\nMemTotal: x kB\n"])
def test_a_file_that_makes_no_sense_costs_the_machines_point_alone(
    tmp_path: Path, name: str, said: bytes
) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(said)
    plexd = shlex.join([sys.executable, "-m", "plexd", "collect", "--json"])
    mount = f"mount --bind {shlex.quote(str(spoilt))} /proc/{name}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {plexd}"],
        env={**os.environ, "PLEXD_DATA_DIR": "", "PLEXD_WIREGUARD_INTERFACE": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert [point["group"] for point in json.loads(done.stdout)] == ["agent"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"plexd: system: /proc/{name}: ")
