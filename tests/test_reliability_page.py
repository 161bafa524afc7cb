"""The page that says which test shows what names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "reliability.md"
_SECTIONS = {"A": 16, "B": 11, "C": 13, "D": 13, "F": 5, "G": 11, "H": 18}
NAMED = re.findall(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", PAGE.read_text())


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_test_the_page_names_is_there(file: str, name: str) -> None:
    assert re.search(rf"^ *(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)


def test_each_line_of_a_section_has_its_label_once() -> None:
    labels = re.findall(r"^\| ([A-H]\d\d) \|", PAGE.read_text(), re.MULTILINE)
    assert len(labels) == len(set(labels)) > 0
    for section, count in _SECTIONS.items():
        assert {f"{section}{number:02}" for number in range(1, count + 1)} <= set(labels)
