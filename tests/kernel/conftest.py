"""One run of the machine for all tests that ask for its results."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kernel.debian import MissingError
from kernel.machine import run_machine

if TYPE_CHECKING:
    from kernel.results import Results


def pytest_configure(config: pytest.Config) -> None:
    """These tests alone have the marker."""
    config.addinivalue_line("markers", "kernel: boots a kernel; skipped where one is missing")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Skips where something is missing, unless ``make test-kernel`` insists."""
    try:
        return run_machine(tmp_path_factory.mktemp("machine"))
    except MissingError as err:
        if os.environ.get("PLEXD_TEST_KERNEL") == "required":
            raise
        pytest.skip(str(err))
