from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.agent.config import yaml_tree as yamlfile
from plexd.agent.config.yaml_tree import Mapping, Node, Scalar, Sequence, YAMLError, parse_yaml


def test_every_node_and_key_knows_its_line() -> None:
    root = parse_yaml("a: 1\nb:\n  - x\n  - {c: 'y'}\n")
    assert isinstance(root, Mapping)
    assert [entry.line for entry in root.entries.values()] == [1, 2]
    items = root.entries["b"].value
    assert isinstance(items, Sequence)
    assert items.items[0] == Scalar(3, "x", quoted=False)
    inner = items.items[1]
    assert isinstance(inner, Mapping)
    assert inner.entries["c"].value == Scalar(4, "y", quoted=True)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n# nothing\n..."])
def test_a_file_without_content_has_no_value(text: str) -> None:
    root = parse_yaml(text)
    assert root is None or (isinstance(root, Scalar) and root.is_null)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a:\n\tb: 1", 2, "a tab stands where YAML wants spaces; indent with spaces"),
        ("a: {b: 1", 1, "the file ends in the middle of a value"),
        ("a: 'x", 1, "the file ends in the middle of a value"),
        ("a: [1,\n\n\n", 1, "the file ends in the middle of a value"),
        ("a: 1\n\nb: 2\na: 3", 4, 'the key "a" stands on line 1 already'),
        ("a: &x 1", 1, "anchors and aliases (& and *) are not supported"),
        ("a: 1\nb: *x", 2, "anchors and aliases (& and *) are not supported"),
        ("a: !!str b", 1, "tags (!) are not supported"),
        ("a: !x {b: 1}", 1, "tags (!) are not supported"),
        ("--- {a: 1}\n--- {b: 1}", 2, "a second document starts here; one file holds one"),
        ("a: 1\n? [b]\n: c", 2, "a list or mapping cannot be a key"),
        ("a: 1\nb: 1\x00", 2, "the character U+0000 is not allowed"),
        ("a: 1\nb: \ufeff", 2, "the character U+FEFF is not allowed"),
        ("\n" + "[" * 20, 2, "nested more than 16 levels deep"),
        ("a: b: c", 1, "a value that contains a colon and a space has to be in quotes"),
        ("a:\n  b:c\n  d: e", 2, 'a space is missing after "b:"'),
        ("a:\n  b: c\n  d:e", 3, 'a space is missing after "d:"'),
        ("- a:b\n  c: d", 1, 'a space is missing after "a:"'),
        ("a: b\n\nc\nd: e", 3, "expected 'key: value' (with a space after the colon)"),
        ("a: b\nc", 2, "expected 'key: value' (with a space after the colon)"),
        ("a: b\nhttps://c", 2, "expected 'key: value' (with a space after the colon)"),
        ("a: b\n  c: d", 2, "wrong indentation, or a colon is missing on the line above"),
        ("a\n  b: c", 2, "wrong indentation, or a colon is missing on the line above"),
        ("a:\n    b: c\n  d: e", 3, "this line does not fit those above; check the indentation"),
        (" a: b\nc: d", 2, "this line does not fit those above; check the indentation"),
        ("a: 'b' c\n", 1, "more text stands after the end of the value"),
        ("a: b\nc: @d\n", 2, "a value starts with a special character; put it in quotes"),
    ],
)
def test_what_is_refused_names_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(YAMLError) as caught:
        parse_yaml(text)
    assert (caught.value.line, caught.value.reason) == (line, reason)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["[" * 2**20, "- " * 2**19, "{a: " * 2**18, "? " * 2**19, "[" + "a," * 2**19, "-\n" * 2**19],
    ids=["brackets", "dashes", "braces", "questions", "commas", "lines"],
)
def test_a_megabyte_of_hostile_yaml_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(YAMLError):
        parse_yaml(text)
    # Unbounded, these take from one second to a minute; the bound is generous for slow machines.
    assert time.process_time() - started < 5


def test_more_values_than_any_configuration_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yamlfile, "_MAX_PARTS", 10)
    with pytest.raises(YAMLError, match="more than 10 values"):
        parse_yaml("[" + "a," * 10 + "]")


@given(st.text(st.sampled_from("ab:-?[]{}!&*#|>'\"%@,\n\t ~"), max_size=60))
def test_any_punctuation_is_a_tree_or_one_error(text: str) -> None:
    outcome = _outcome(text)
    if isinstance(outcome, YAMLError):
        assert 1 <= outcome.line <= text.count("\n") + 1
        assert "\n" not in outcome.reason


def _outcome(text: str) -> Node | YAMLError | None:
    try:
        return parse_yaml(text)
    except YAMLError as err:
        return err
