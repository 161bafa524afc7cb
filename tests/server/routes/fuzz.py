"""``make fuzz``: generated requests that the server's document allows and forbids.

The same as in `test_openapi`, but many more, and others in each run.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from server.routes.conformance import ROUTES, serving_target

EXAMPLES = 40  # of each route in a round


def main() -> None:
    """Fuzz one route after the other until the requests or the time are used up; print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    _print(f"seed {options.seed}")
    found: dict[str, Counter[int]] = {route: Counter() for route in ROUTES}
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as directory,
        serving_target(Path(directory) / "d") as target,
    ):
        number = 0
        while time.monotonic() - began < options.minutes * 60 and _total(found) < options.requests:
            route = ROUTES[number % len(ROUTES)]
            found[route] += target.explore(route, EXAMPLES, seed=options.seed + number)
            number += 1
            if number % len(ROUTES) == 0:
                _print(f"{_total(found):,} requests")
    for route, statuses in found.items():
        counts = "  ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
        _print(f"{route:40} {counts}")
    all_statuses = sum(found.values(), Counter[int]())
    errors = sum(count for status, count in all_statuses.items() if status >= 500)
    _print(
        f"{_total(found):,} requests in {(time.monotonic() - began) / 60:.1f} min: "
        f"{errors} answers from 500 on, {all_statuses[503]} of them 503; none undocumented"
    )


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _total(found: dict[str, Counter[int]]) -> int:
    return sum(counter.total() for counter in found.values())


main()
