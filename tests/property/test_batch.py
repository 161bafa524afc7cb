"""Reports of any content: what is written is read back, and what is refused is refused alike."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from plexd.api import (
    AgentStats,
    BatchName,
    DecodeError,
    EncodeError,
    LatencyResult,
    MetricBatch,
    MetricPoint,
    Predecessor,
    Secret,
    SystemStats,
    TunnelStats,
    check_points,
    decode_batch,
)
from support.points import AGENT, EXAMPLE, LATENCY, SYSTEM, TUNNEL, documents

if TYPE_CHECKING:
    from collections.abc import Sequence

uint64 = st.integers(0, 2**64 - 1)
count = st.integers(0, 2**63 - 1)
finite = st.floats(0, allow_nan=False, allow_infinity=False)
percent = st.floats(0, 100)
peers = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
zones = st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
times = st.datetimes(timezones=st.just(UTC)) | st.datetimes(
    datetime(1, 1, 3),  # noqa: DTZ001  # hypothesis adds the zone
    datetime(9999, 12, 29),  # noqa: DTZ001  # the same
    timezones=zones,
)

payloads = {
    "system": st.builds(SystemStats, percent, *[uint64] * 6, finite, finite, finite),
    "tunnel": st.builds(
        TunnelStats,
        peers,
        times,
        uint64,
        uint64,
        st.booleans(),
        st.booleans(),
        st.just(-1.0) | percent,
    ),
    "latency": st.builds(LatencyResult, peers, st.integers(-1, 2**63 - 1)),
    "agent": st.builds(
        AgentStats, count, uint64, uint64, uint64, st.integers(0, 2**32 - 1), finite, count
    ),
}


@st.composite
def points(draw: st.DrawFn) -> MetricPoint:
    group = draw(st.sampled_from(sorted(payloads)))
    data: Any = draw(payloads[group])
    own = getattr(data, "peer_id", "")
    peer = draw(st.sampled_from(["", own]))
    return MetricPoint(timestamp=draw(times), group=group, peer_id=peer, data=data)


reports = st.lists(points(), max_size=8)


@pytest.mark.slow
@given(reports)
def test_what_is_written_is_read_back(sent: list[MetricPoint]) -> None:
    check_points(sent)
    batch = MetricBatch(sent)
    read = decode_batch(batch.to_json())
    assert read == batch
    assert read.to_json() == batch.to_json()
    assert all(point.timestamp.tzinfo is UTC for point in read)


@pytest.mark.slow
@given(reports)
def test_any_json_parser_reads_the_same_points(sent: list[MetricPoint]) -> None:
    read = json.loads(MetricBatch(sent).to_json())
    assert [list(p) for p in read] == [
        ["timestamp", "group", *(["peer_id"] if point.peer_id else []), "data"] for point in sent
    ]
    assert [p["group"] for p in read] == [point.group for point in sent]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["system", "tunnel", "latency", "agent", "2026-02-12T10:30:00Z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
broken_json = st.tuples(
    st.integers(0, len(EXAMPLE.to_json())), st.integers(0, 40), st.binary(max_size=10)
).map(lambda cut: EXAMPLE.to_json()[: cut[0]] + cut[2] + EXAMPLE.to_json()[cut[0] + cut[1] :])


@given(st.binary(max_size=400) | broken_json)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"1" * 10_000)
def test_arbitrary_bytes_are_a_report_or_a_decode_error(body: bytes) -> None:
    try:
        batch = decode_batch(body)
    except DecodeError as err:
        assert err.reason  # noqa: PT017  # either outcome is right
    else:
        assert decode_batch(batch.to_json()) == batch


@given(st.integers(0, 3), st.data())
def test_a_spoilt_value_is_refused_with_its_index_or_accepted(
    index: int, data: st.DataObject
) -> None:
    report = documents()
    where = data.draw(st.sampled_from([report[index], report[index]["data"]]))
    where[data.draw(st.sampled_from(sorted(where)) | st.text(max_size=9))] = data.draw(json_values)
    body = json.dumps(report).encode()
    try:
        batch = decode_batch(body)
    except DecodeError as err:
        assert err.index in {index, None}  # noqa: PT017  # either outcome is right
        if b"NaN" not in body and b"Infinity" not in body and b"\\ud" not in body:
            assert err.index == index  # noqa: PT017  # the same
    else:
        check_points(batch)


class Count(int):
    """Whole, but not the type."""


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**63 - 2, 2**64 + 2),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e308, 100.0, -1.0, 0.5]),
    st.text(max_size=8),
    st.text(min_size=250, max_size=260),
    st.sampled_from(
        ["", "peer-abc-123", "\ud800", "a\udfffb", "system", "tunnel", "latency", "agent"]
    ),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.datetimes(),
    st.datetimes(timezones=zones),
    st.sampled_from([datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
    st.just(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))),
    st.just("2026-02-12T10:30:00Z"),
    st.decimals(0, 10),
    st.sampled_from([Count(5), Secret("peer-abc-123"), Decimal("NaN"), object(), 1j]),
    st.sampled_from([p.data for p in (SYSTEM, TUNNEL, LATENCY, AGENT)]),
    st.sampled_from([b"{}", b"", b"null", b'{"peer_id":"p","rtt_nano":1}', b"NaN"]).map(
        msgspec.Raw
    ),
)


def arrives(sent: Sequence[MetricPoint]) -> bool:
    """Whether a receiver takes the points and then has what was sent, not its likeness in text."""
    try:
        read = decode_batch(MetricBatch(sent).to_json())
    except DecodeError:
        return False
    return all(
        isinstance(ours.data, msgspec.Raw) or ours == theirs
        for ours, theirs in zip(sent, read, strict=True)
    )


@given(st.lists(points(), max_size=3), points(), st.booleans(), st.data())
def test_the_check_refuses_exactly_what_would_not_arrive(
    others: list[MetricPoint],
    point: MetricPoint,
    in_payload: bool,  # hypothesis fills it
    data: st.DataObject,
) -> None:
    struct: Any = point.data if in_payload else point
    field = data.draw(st.sampled_from(struct.__struct_fields__))
    value = data.draw(anything)
    # Beyond 2**53 a whole number in a float's place arrives rounded, as JSON has it.
    assume(type(getattr(struct, field)) is not float or type(value) is not int or value < 2**53)
    struct = msgspec.structs.replace(struct, **{field: value})
    wrong = msgspec.structs.replace(point, data=struct) if in_payload else struct
    sent = [*others, wrong]
    if arrives(sent):
        check_points(sent)
        return
    with pytest.raises(EncodeError) as caught:
        check_points(sent)
    assert caught.value.index == len(others)


epochs = st.from_regex("[0-9a-f]{32}", fullmatch=True)
names = st.integers(1, 2**31 - 1).flatmap(
    lambda points: st.builds(BatchName, epochs, st.integers(1, 2**63 - points), st.just(points))
)
places = st.integers(0, 2**63 - 1)
predecessors = st.builds(Predecessor, epochs, places, places) | st.builds(
    Predecessor, skipped=places
)


@pytest.mark.slow
@given(names)
def test_a_name_that_is_written_is_read_back(name: BatchName) -> None:
    assert BatchName.parse(str(name)) == name


@pytest.mark.slow
@given(predecessors)
def test_a_predecessor_that_is_written_is_read_back(before: Predecessor) -> None:
    assert Predecessor.parse(str(before)) == before


@st.composite
def spoilt_names(draw: st.DrawFn) -> str:
    text = str(draw(names | predecessors))
    cut = draw(st.integers(0, len(text)))
    return text[:cut] + draw(st.text(max_size=3)) + text[cut + draw(st.integers(0, 3)) :]


@pytest.mark.slow
@given(st.text() | spoilt_names())
@example("0" * 32 + ";first=0;points=1")
@example("0" * 32 + ";first=9223372036854775808;points=1")
@example("0" * 32 + ";first=9223372036854775807;points=2")
@example("0" * 32 + ";first=1;points=2147483648")
@example("0" * 32 + ";first=1;points=1\n")
@example("0" * 32 + ";first=\u0661;points=1")
@example("0" * 32 + ":9223372036854775808;skipped=0")
@example("none;skipped=9223372036854775808")
@pytest.mark.parametrize("kind", [BatchName, Predecessor])
def test_any_other_text_is_a_decode_error(kind: type[BatchName | Predecessor], text: str) -> None:
    try:
        read = kind.parse(text)
    except DecodeError as err:
        assert err.reason  # noqa: PT017  # either outcome is right
    else:
        assert str(read) == text
