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
    """Add the marker that only these tests use."""
    config.addinivalue_line("markers", "kernel: boots a kernel; skipped where one is missing")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the machine; skip if something is missing, unless ``make test-kernel`` requires it."""
    try:
        return run_machine(tmp_path_factory.mktemp("machine"))
    except MissingError as err:
        if os.environ.get("PLEXD_TEST_KERNEL") == "required":
            raise
        pytest.skip(str(err))
