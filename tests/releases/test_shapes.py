"""What counts as a change of an answer that an older program would notice."""

from __future__ import annotations

from typing import Any

import pytest

from releases.shapes import differences, shape

OLD = {"id": "n1", "up": True, "peers": [{"id": "a", "rtt": None}, {"id": "b", "rtt": 5}]}


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        OLD | {"newer": 1},
        OLD | {"id": None, "peers": None},
        OLD | {"peers": []},
        OLD | {"peers": [{"id": "c", "rtt": 2.5, "loss": 1}]},
        OLD | {"peers": [{"id": "c"}, {"rtt": 1}]},
    ],
    ids=str,
)
def test_more_keys_nulls_and_empty_lists_are_no_change(new: Any) -> None:
    assert list(differences(shape(OLD), shape(new))) == []


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"up": True, "peers": []}, ".id is gone"),
        (OLD | {"id": 5}, ".id was text, and is number"),
        (OLD | {"up": 1}, ".up was boolean, and is number"),
        (OLD | {"peers": {"a": {}}}, ".peers was list, and is object"),
        (OLD | {"peers": [{"id": "a"}]}, ".peers[].rtt is gone"),
        (OLD | {"peers": [{"id": "a", "rtt": "5 ms"}]}, ".peers[].rtt was number, and is text"),
        ([OLD], " was object, and is list"),
    ],
    ids=str,
)
def test_a_key_that_is_gone_or_has_another_type_is_named(new: Any, said: str) -> None:
    assert list(differences(shape(OLD), shape(new))) == [said]
