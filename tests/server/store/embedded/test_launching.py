from __future__ import annotations

import pytest

from plexd_server.errors import StartError
from plexd_server.store import Apart
from plexd_server.store.embedded.launching import TablesProcess


@pytest.mark.parametrize(
    ("memory", "most"),
    [
        ("256MB", 4 * 256 * 10**6 + 2**29),
        ("1.5 GiB", 6 * 2**30 + 2**29),
        ("64mb", 4 * 64 * 10**6 + 2**29),
        ("1TB", 4 * 10**12 + 2**29),
    ],
)
def test_the_process_may_use_a_multiple_of_the_databases_memory(memory: str, most: int) -> None:
    assert Apart("json", memory).words() == ["json", str(most)]


def test_a_size_that_is_none_starts_nothing() -> None:
    with pytest.raises(StartError, match="--store-memory 'much' is not a size"):
        TablesProcess(Apart(memory="much"))
