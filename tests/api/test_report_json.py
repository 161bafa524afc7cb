"""The JSON of a report: written exactly as specified, read strictly."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from plexd.api import (
    BatchName,
    DecodeError,
    EncodeError,
    LatencyResult,
    MetricBatch,
    MetricPoint,
    Predecessor,
    Secret,
    TunnelStats,
    check_points,
    continuation,
    decode_batch,
    is_continuation,
)
from support.points import (
    AGENT,
    EPOCH,
    EXAMPLE,
    EXAMPLE_JSON,
    LATENCY,
    NOW,
    SYSTEM,
    TUNNEL,
    documents,
    latency_batch,
    named,
)

if TYPE_CHECKING:
    from collections.abc import Callable

replace = msgspec.structs.replace
ZERO = datetime(1, 1, 1, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))


def compact(text: str) -> bytes:
    """``text`` without the whitespace between its tokens; none of its strings has any."""
    return "".join(text.split()).encode()


def with_data(point: MetricPoint, **changes: object) -> MetricPoint:
    assert not isinstance(point.data, msgspec.Raw)
    return replace(point, data=replace(point.data, **changes))


# Written


def test_the_specified_report_is_written_byte_for_byte() -> None:
    assert EXAMPLE.to_json() == compact(EXAMPLE_JSON)


def test_agent_statistics_are_written_under_the_specified_names_in_their_order() -> None:
    assert MetricBatch([AGENT]).to_json() == (
        b'[{"timestamp":"2026-02-12T10:30:00Z","group":"agent","data":{"goroutine_count":42,'
        b'"heap_alloc_bytes":8388608,"heap_sys_bytes":16777216,"gc_pause_total_ns":1500000,'
        b'"gc_num_gc":12,"uptime_seconds":3600.5,"reconnect_count":3}}]'
    )


def test_an_empty_batch_is_an_empty_array() -> None:
    assert MetricBatch([]).to_json() == b"[]"


def test_a_peer_that_never_shook_hands_carries_the_zero_time() -> None:
    point = with_data(TUNNEL, last_handshake_time=ZERO, handshake_succeeded=False)
    assert b'"last_handshake_time":"0001-01-01T00:00:00Z"' in MetricBatch([point]).to_json()


def test_times_of_other_zones_are_written_in_utc() -> None:
    point = replace(with_data(TUNNEL, last_handshake_time=NOW.astimezone(EAST)), timestamp=NOW)
    other = replace(point, timestamp=NOW.astimezone(EAST))
    assert other.timestamp.utcoffset() == timedelta(hours=5, minutes=30)
    assert (
        MetricBatch([other]).to_json()
        == MetricBatch([with_data(TUNNEL, last_handshake_time=NOW)]).to_json()
    )
    assert MetricBatch([point]).to_json() == MetricBatch([other]).to_json()


def test_utc_under_another_name_is_utc() -> None:
    class Zulu(tzinfo):
        def utcoffset(self, _: datetime | None) -> timedelta:
            return timedelta()

        def tzname(self, _: datetime | None) -> str:
            return "Zulu"

        def dst(self, _: datetime | None) -> timedelta:
            return timedelta()

    point = replace(LATENCY, timestamp=NOW.replace(tzinfo=Zulu()))
    assert MetricBatch([point]).to_json() == MetricBatch([LATENCY]).to_json()


def test_microseconds_are_kept() -> None:
    point = replace(LATENCY, timestamp=NOW.replace(microsecond=123456))
    body = MetricBatch([point]).to_json()
    assert b'"2026-02-12T10:30:00.123456Z"' in body
    assert decode_batch(body)[0] == point


def test_a_batch_is_encoded_once() -> None:
    batch = latency_batch(3)
    assert batch.to_json() is batch.to_json()


def test_a_payload_that_is_json_already_is_written_as_it_is() -> None:
    raw = msgspec.Raw(b'{"peer_id":"peer-abc-123","rtt_nano":15000000}')
    assert MetricBatch([replace(LATENCY, data=raw)]).to_json() == MetricBatch([LATENCY]).to_json()


def test_a_peer_called_null_is_no_missing_value() -> None:
    point = replace(LATENCY, peer_id="null", data=LatencyResult("null", 1))
    assert decode_batch(MetricBatch([point]).to_json()) == MetricBatch([point])


UNWRITABLE: dict[str, tuple[object, str]] = {
    "a naive time": (replace(LATENCY, timestamp=datetime(2026, 2, 12)), "timestamp"),  # noqa: DTZ001
    "a naive handshake": (
        with_data(TUNNEL, last_handshake_time=datetime(2026, 2, 12)),  # noqa: DTZ001  # on purpose
        "data.last_handshake_time",
    ),
    "NaN": (with_data(SYSTEM, cpu_usage_percent=math.nan), "data.cpu_usage_percent"),
    "infinity": (with_data(SYSTEM, load_avg_1=math.inf), "data.load_avg_1"),
    "minus infinity": (with_data(AGENT, uptime_seconds=-math.inf), "data.uptime_seconds"),
    "no point at all": ("point", ""),
    "None": (None, ""),
    "a lone surrogate": (replace(LATENCY, peer_id="\ud800", data=LatencyResult("\ud800", 1)), ""),
    "a time before the first in UTC": (replace(LATENCY, timestamp=ZERO.replace(tzinfo=EAST)), ""),
    "a time that is text": (replace(LATENCY, timestamp="2026-02-12T10:30:00Z"), ""),
    "a payload nothing can encode": (replace(LATENCY, data=object()), ""),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_json_has_no_form_for_is_an_encode_error_that_names_the_point(name: str) -> None:
    point, field = UNWRITABLE[name]
    batch = MetricBatch([LATENCY, point])  # type: ignore[list-item]  # some are no points
    with pytest.raises(EncodeError) as caught:
        batch.to_json()
    assert (caught.value.index, caught.value.field) == (1, field)


# The batch itself


def test_a_batch_is_a_sequence_of_its_points() -> None:
    batch = MetricBatch([SYSTEM, TUNNEL, LATENCY])
    assert len(batch) == 3
    assert list(batch) == [SYSTEM, TUNNEL, LATENCY]
    assert batch[0] == SYSTEM
    assert batch[-1] == LATENCY
    assert list(batch[1:]) == [TUNNEL, LATENCY]
    assert TUNNEL in batch
    assert batch.index(LATENCY) == 2
    assert list(reversed(batch)) == [LATENCY, TUNNEL, SYSTEM]
    with pytest.raises(IndexError):
        _ = batch[3]


def test_a_batch_takes_points_from_any_iterable_and_keeps_its_own() -> None:
    points = [SYSTEM]
    batch = MetricBatch(points)
    points.append(TUNNEL)
    assert list(batch) == [SYSTEM]
    assert list(MetricBatch(p for p in [SYSTEM, TUNNEL])) == [SYSTEM, TUNNEL]


@pytest.mark.parametrize("attribute", ["name", "dropped", "other"])
def test_a_batch_cannot_be_changed(attribute: str) -> None:
    batch = MetricBatch([SYSTEM])
    with pytest.raises(AttributeError):
        setattr(batch, attribute, 1)
    with pytest.raises(TypeError):
        batch[0] = TUNNEL  # type: ignore[index]  # the very thing tested


def test_points_and_payloads_cannot_be_changed() -> None:
    for struct, field in ((LATENCY, "group"), (LATENCY.data, "rtt_nano")):
        with pytest.raises(AttributeError):
            setattr(struct, field, 1)


def test_batches_are_equal_by_points_name_and_loss() -> None:
    assert MetricBatch([SYSTEM]) == MetricBatch([SYSTEM])
    assert MetricBatch([SYSTEM]) != MetricBatch([TUNNEL])
    assert named(EXAMPLE, 1) == named(EXAMPLE, 1)
    assert named(EXAMPLE, 1) != named(EXAMPLE, 2)
    assert named(EXAMPLE, 1, dropped=1) != named(EXAMPLE, 1)
    assert MetricBatch([SYSTEM]) != [SYSTEM]


def test_a_batch_is_no_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(MetricBatch([]))


def test_a_batch_shows_its_size_and_name_but_no_points() -> None:
    assert repr(named(EXAMPLE, 7, dropped=2)) == (
        f"MetricBatch(3 points, name={EPOCH};first=7;points=3, dropped=2)"
    )


def test_a_batch_name_is_the_header_of_the_delivery_contract() -> None:
    assert str(BatchName(EPOCH, 51, 100)) == f"{EPOCH};first=51;points=100"
    assert BatchName(EPOCH, 51, 100).last == 150


def test_a_predecessor_is_the_header_of_the_delivery_contract() -> None:
    assert str(Predecessor(EPOCH, 150, 7)) == f"{EPOCH}:150;skipped=7"
    assert str(Predecessor(skipped=7)) == "none;skipped=7"


def test_a_piece_of_a_batch_keeps_its_places() -> None:
    whole = named(EXAMPLE, 7, dropped=2, after=Predecessor(EPOCH, 3))
    piece = whole.piece(1, 3)
    assert (list(piece), piece.name) == (list(EXAMPLE)[1:], BatchName(EPOCH, 8, 2))
    assert (piece.dropped, piece.after) == (2, Predecessor(EPOCH, 3))


def test_a_continuation_is_the_same_for_everybody_who_renames_the_same_points() -> None:
    renamed = continuation(EPOCH, NOW)
    assert renamed == continuation(EPOCH, NOW.astimezone(timezone(timedelta(hours=5))))
    assert is_continuation(renamed, EPOCH)
    assert is_continuation(continuation(renamed, NOW), renamed)
    others = [continuation(EPOCH, NOW + timedelta(microseconds=1)), continuation("f" * 32, NOW)]
    assert renamed not in others
    assert not is_continuation(EPOCH, EPOCH)
    assert not is_continuation(others[1], EPOCH)
    assert not is_continuation(renamed, "")
    assert str(BatchName(renamed, 1, 1)) == str(BatchName.parse(f"{renamed};first=1;points=1"))


# Read


def test_the_specified_report_is_read_whatever_its_whitespace() -> None:
    assert decode_batch(EXAMPLE_JSON.encode()) == EXAMPLE
    assert decode_batch(compact(EXAMPLE_JSON)) == EXAMPLE


def test_what_is_read_is_in_utc() -> None:
    body = EXAMPLE_JSON.replace("10:30:00Z", "16:00:00+05:30").replace(
        "10:29:55Z", "12:29:55+02:00"
    )
    batch = decode_batch(body.encode())
    assert batch == EXAMPLE
    assert batch[0].timestamp.tzinfo is UTC
    assert isinstance(batch[1].data, TunnelStats)
    assert batch[1].data.last_handshake_time.tzinfo is UTC


def test_an_empty_array_is_an_empty_batch() -> None:
    assert decode_batch(b"[]") == MetricBatch([])


Spoil = tuple[int, tuple[str, ...], object]
MISSING = object()


def spoilt(index: int, path: tuple[str, ...], value: object) -> bytes:
    """The report of `documents` with one value replaced, removed or added."""
    report = documents()
    where: Any = report[index]
    for step in path[:-1]:
        where = where[step]
    if value is MISSING:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return json.dumps(report).encode()


FIELDS = [(i, key) for i, document in enumerate(documents()) for key in document["data"]]


@pytest.mark.parametrize(("index", "key"), FIELDS, ids=str)
def test_every_payload_field_is_required(index: int, key: str) -> None:
    with pytest.raises(DecodeError, match="missing required") as caught:
        decode_batch(spoilt(index, ("data", key), MISSING))
    assert (caught.value.index, caught.value.field) == (index, f"data.{key}")


@pytest.mark.parametrize("value", [None, [], {}, "nonsense"], ids=str)
@pytest.mark.parametrize(("index", "key"), [f for f in FIELDS if f[1] != "peer_id"], ids=str)
def test_every_payload_field_has_its_type(index: int, key: str, value: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_batch(spoilt(index, ("data", key), value))
    assert (caught.value.index, caught.value.field) == (index, f"data.{key}")


INTEGERS = [
    (i, k) for i, k in FIELDS if isinstance(documents()[i]["data"][k], int) and "shake" not in k
]


@pytest.mark.parametrize("value", [1.0, 1.5, True, "1", -2, 2**64, 10**30], ids=str)
@pytest.mark.parametrize(("index", "key"), INTEGERS, ids=str)
def test_every_count_is_a_whole_number_in_its_range(index: int, key: str, value: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_batch(spoilt(index, ("data", key), value))
    assert (caught.value.index, caught.value.field) == (index, f"data.{key}")


BYTES = [(i, k) for i, k in INTEGERS if k.endswith(("_bytes", "_total_ns"))]


@pytest.mark.parametrize("value", [0, 2**63, 2**64 - 1], ids=str)
@pytest.mark.parametrize(("index", "key"), BYTES, ids=str)
def test_byte_counts_have_64_bits(index: int, key: str, value: int) -> None:
    batch = decode_batch(spoilt(index, ("data", key), value))
    assert getattr(batch[index].data, key) == value
    assert decode_batch(MetricBatch(batch).to_json()) == batch
    check_points(batch)


@pytest.mark.parametrize(
    ("index", "key", "value"),
    [
        (0, "cpu_usage_percent", -0.1),
        (0, "cpu_usage_percent", 100.1),
        (0, "load_avg_1", -1),
        (1, "packet_loss_percent", -1.5),
        (1, "packet_loss_percent", 101),
        (1, "handshake_succeeded", 1),
        (2, "rtt_nano", -2),
        (2, "rtt_nano", 2**63),
        (2, "peer_id", ""),
        (2, "peer_id", "x" * 257),
        (3, "gc_num_gc", 2**32),
        (3, "goroutine_count", -1),
        (3, "uptime_seconds", -1),
    ],
    ids=str,
)
def test_values_out_of_their_range_are_refused(index: int, key: str, value: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_batch(spoilt(index, ("data", key), value))
    assert (caught.value.index, caught.value.field) == (index, f"data.{key}")


@pytest.mark.parametrize(
    ("index", "key", "value"),
    [
        (0, "cpu_usage_percent", 0),
        (0, "cpu_usage_percent", 100),
        (0, "load_avg_1", 1e308),
        (1, "packet_loss_percent", -1),
        (2, "rtt_nano", -1),
        (2, "rtt_nano", 2**63 - 1),
        (3, "gc_num_gc", 2**32 - 1),
        (3, "goroutine_count", 2**63 - 1),
    ],
    ids=str,
)
def test_values_at_the_edge_of_their_range_are_accepted(
    index: int, key: str, value: object
) -> None:
    assert getattr(decode_batch(spoilt(index, ("data", key), value))[index].data, key) == value


POINTS: dict[str, tuple[Spoil, str]] = {
    "a group of other characters": ((1, ("group",), "Tunnels"), "group"),
    "a group of no characters": ((1, ("group",), ""), "group"),
    "a group of too many characters": ((1, ("group",), "x" * 65), "group"),
    "a group that is no text": ((1, ("group",), 5), "group"),
    "no group": ((1, ("group",), MISSING), "group"),
    "no timestamp": ((1, ("timestamp",), MISSING), "timestamp"),
    "no data": ((1, ("data",), MISSING), "data"),
    "data that is null": ((1, ("data",), None), "data"),
    "data that is an array": ((1, ("data",), [1]), "data"),
    "the payload of another group": ((2, ("group",), "tunnel"), "data.last_handshake_time"),
    "a number as timestamp": ((1, ("timestamp",), 1770892200), "timestamp"),
    "a naive timestamp": ((1, ("timestamp",), "2026-02-12T10:30:00"), "timestamp"),
    "a date as timestamp": ((1, ("timestamp",), "2026-02-12"), "timestamp"),
    "no such day": ((1, ("timestamp",), "2026-02-30T10:30:00Z"), "timestamp"),
    "a year beyond": ((1, ("timestamp",), "10000-01-01T00:00:00Z"), "timestamp"),
    "a time before the first in UTC": (
        (1, ("timestamp",), "0001-01-01T00:00:00+01:00"),
        "timestamp",
    ),
    "a time after the last in UTC": ((1, ("timestamp",), "9999-12-31T23:59:59-01:00"), "timestamp"),
    "a handshake before the first time in UTC": (
        (1, ("data", "last_handshake_time"), "0001-01-01T00:00:00+01:00"),
        "data.last_handshake_time",
    ),
    "a naive handshake": (
        (1, ("data", "last_handshake_time"), "2026-02-12T10:30:00"),
        "data.last_handshake_time",
    ),
    "a peer that is not the payload's": ((1, ("peer_id",), "peer-x"), "peer_id"),
    "a peer where none belongs": ((0, ("peer_id",), "peer-x"), "peer_id"),
    "a peer on the agent's own point": ((3, ("peer_id",), "peer-x"), "peer_id"),
    "a peer of null": ((1, ("peer_id",), None), "peer_id"),
    "an overlong peer": ((1, ("peer_id",), "x" * 257), "peer_id"),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_bad_point_is_refused_with_its_index_and_field(name: str) -> None:
    spoil, field = POINTS[name]
    with pytest.raises(DecodeError) as caught:
        decode_batch(spoilt(*spoil))
    assert (caught.value.index, caught.value.field) == (spoil[0], field)
    assert str(caught.value) == f"point {spoil[0]}: {field}: {caught.value.reason}"


def test_a_point_may_leave_out_the_peer_its_payload_names() -> None:
    batch = decode_batch(spoilt(1, ("peer_id",), MISSING))
    assert batch[1].peer_id == ""


def numbers(literal: bytes) -> bytes:
    return EXAMPLE.to_json().replace(b":42.5", b":" + literal)


BODIES: dict[str, tuple[bytes, int | None, str]] = {
    "nothing": (b"", None, ""),
    "blanks": (b" \n ", None, ""),
    "an object": (b"{}", None, ""),
    "text": (b'"points"', None, ""),
    "a number as point": (b"[5]", 0, ""),
    "null as point": (b"[null]", 0, ""),
    "an array as point": (b"[[]]", 0, ""),
    "an empty point": (b"[{}]", 0, "group"),
    "a byte order mark": (b"\xef\xbb\xbf[]", None, ""),
    "trailing garbage": (b"[]x", None, ""),
    "a second document": (b"[][]", None, ""),
    "a trailing NUL": (b"[]\x00", None, ""),
    "a trailing comma": (b"[{},]", 0, "group"),
    "a cut report": (EXAMPLE.to_json()[:-1], None, ""),
    "NaN": (numbers(b"NaN"), None, ""),
    "Infinity": (numbers(b"Infinity"), None, ""),
    "-Infinity": (numbers(b"-Infinity"), None, ""),
    "1e400": (numbers(b"1e400"), 0, "data.cpu_usage_percent"),
    "a hexadecimal number": (numbers(b"0x10"), None, ""),
    "a leading zero": (numbers(b"042"), None, ""),
    "5,000 digits": (numbers(b"1" * 5000), 0, "data.cpu_usage_percent"),
    "a lone surrogate": (EXAMPLE.to_json().replace(b"abc-123", b"\\ud800"), None, ""),
    "a raw NUL in text": (EXAMPLE.to_json().replace(b"abc-123", b"a\x00b"), None, ""),
    "broken UTF-8": (EXAMPLE.to_json().replace(b"abc-123", b"\xff"), None, ""),
    "UTF-16": ("[]".encode("utf-16"), None, ""),
    "arrays 100,000 deep": (b"[" * 100_000, 0, ""),
    "a field 100,000 deep": (b'[{"x":' + b"[" * 100_000, None, ""),
    "objects 100,000 deep": (b'[{"x":' * 100_000, None, ""),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_with_what_can_be_said_about_the_place(name: str) -> None:
    body, index, field = BODIES[name]
    with pytest.raises(DecodeError) as caught:
        decode_batch(body)
    assert (caught.value.index, caught.value.field) == (index, field)
    assert caught.value.reason
    assert caught.value.__cause__ is None


def test_odd_text_in_a_peer_is_text() -> None:
    for peer in ("\0", "\u202e", "peer`x`", "a - at `$[0]`", "😀", " "):
        point = replace(LATENCY, peer_id=peer, data=LatencyResult(peer, 1))
        assert decode_batch(MetricBatch([point]).to_json())[0] == point
        check_points([point])


def test_a_value_that_imitates_a_place_does_not_move_the_error() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_batch(spoilt(1, ("data", "rx_bytes"), "x` - at `$[7].y"))
    assert (caught.value.index, caught.value.field) == (1, "data.rx_bytes")


# What only a newer version knows


def test_unknown_keys_are_skipped_and_counted() -> None:
    report = documents()
    report[0]["zone"] = {"a": [1]}
    report[1]["data"] |= {"mtu": 1420, "endpoint": None}
    report[3]["data"]["x` - at `$[7].y"] = "text"
    batch = decode_batch(json.dumps(report).encode())
    assert list(batch) == list(decode_batch(json.dumps(documents()).encode()))
    assert batch.unknown_keys == 4
    assert decode_batch(EXAMPLE.to_json()).unknown_keys == 0


@pytest.mark.parametrize(
    ("data", "peer_id"),
    [({}, ""), ({"hops": [1, {"ttl": 2.5}], "peer_id": "p"}, "p"), ({"text": "x" * 16_000}, "p")],
    ids=["empty", "nested", "long"],
)
def test_a_point_of_an_unknown_group_is_carried_as_it_came(data: object, peer_id: str) -> None:
    report = [*documents(), {**documents()[0], "group": "path", "peer_id": peer_id, "data": data}]
    batch = decode_batch(json.dumps(report).encode())
    point = batch[4]
    assert (point.group, point.peer_id, point.timestamp) == ("path", peer_id, batch[0].timestamp)
    assert isinstance(point.data, msgspec.Raw)
    assert json.loads(bytes(point.data)) == data
    assert decode_batch(batch.to_json()) == batch
    check_points(batch)


DEEP: object = 1
for _ in range(20):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "data",
    [None, [], "text", 5, {"x": "y" * 17_000}, {"x": DEEP}],
    ids=["null", "array", "text", "number", "long", "deep"],
)
def test_what_an_unknown_group_may_not_carry_is_refused(data: object) -> None:
    report = [*documents(), {**documents()[0], "group": "path", "data": data}]
    with pytest.raises(DecodeError) as caught:
        decode_batch(json.dumps(report).encode())
    assert (caught.value.index, caught.value.field) == (4, "data")


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_an_unknown_group_carries_finite_numbers_only(number: bytes) -> None:
    body = b'[{"timestamp":"2026-02-12T10:30:00Z","group":"path","data":{"x":[%s]}}]' % number
    with pytest.raises(DecodeError):
        decode_batch(body)


@pytest.mark.parametrize("key", ["timestamp", "data"])
def test_a_point_of_an_unknown_group_has_what_every_point_has(key: str) -> None:
    other = {**documents()[0], "group": "path"}
    del other[key]
    with pytest.raises(DecodeError) as caught:
        decode_batch(json.dumps([*documents(), other]).encode())
    assert caught.value.index == 4
    assert key in str(caught.value)


@pytest.mark.parametrize("index", range(4))
def test_beside_unknown_things_the_known_are_read_as_strictly(index: int) -> None:
    report = [{**documents()[0], "group": "path", "data": {}}, *documents()]
    report[4]["newer"] = 1
    report[index + 1]["timestamp"] = 5
    with pytest.raises(DecodeError) as caught:
        decode_batch(json.dumps(report).encode())
    assert (caught.value.index, caught.value.field) == (index + 1, "timestamp")


def test_null_is_an_empty_report() -> None:
    assert decode_batch(b" null ") == MetricBatch([])


# Checked before it is written

UNACCEPTABLE: dict[str, tuple[object, str]] = {
    "another peer than the payload's": (replace(LATENCY, peer_id="peer-x"), "peer_id"),
    "an overlong peer": (replace(LATENCY, peer_id="x" * 257), "peer_id"),
    "a peer that is no text": (replace(LATENCY, peer_id=5), "peer_id"),
    "a peer that is None": (replace(LATENCY, peer_id=None), "peer_id"),
    "a peer where none belongs": (replace(SYSTEM, peer_id="peer-x"), "peer_id"),
    "a group that cannot be": (replace(LATENCY, group="Latencies"), "group"),
    "the payload of another group": (
        replace(LATENCY, group="tunnel"),
        "data.last_handshake_time",
    ),
    "a float for a whole number": (with_data(LATENCY, rtt_nano=1.0), "data.rtt_nano"),
    "a truth for a whole number": (with_data(LATENCY, rtt_nano=True), "data.rtt_nano"),
    "no number": (with_data(LATENCY, rtt_nano=None), "data.rtt_nano"),
    "a negative count": (with_data(SYSTEM, disk_used_bytes=-1), "data.disk_used_bytes"),
    "a decimal": (with_data(SYSTEM, cpu_usage_percent=Decimal(1)), "data.cpu_usage_percent"),
    "a time for text": (with_data(LATENCY, peer_id=NOW), "peer_id"),
    "a time for text in the payload alone": (
        replace(LATENCY, peer_id="", data=LatencyResult(NOW, 1)),  # type: ignore[arg-type]  # on purpose
        "data.peer_id",
    ),
    "a number of a subclass": (with_data(LATENCY, rtt_nano=HTTPStatus.OK), "data.rtt_nano"),
    "text of a subclass": (with_data(LATENCY, peer_id=Secret("peer-abc-123")), ""),
    "2**64 bytes": (with_data(SYSTEM, disk_used_bytes=2**64), "data.disk_used_bytes"),
    "2**64 received bytes": (with_data(TUNNEL, rx_bytes=2**64), "data.rx_bytes"),
    "a payload of JSON that is none": (replace(LATENCY, data=msgspec.Raw(b"")), ""),
    "JSON of another group": (replace(LATENCY, data=msgspec.Raw(b"{}")), "data.peer_id"),
    "JSON that smuggles in a point": (
        replace(
            LATENCY,
            data=msgspec.Raw(
                MetricBatch([LATENCY]).to_json().partition(b'"data":')[2][:-2]
                + b"},"
                + MetricBatch([LATENCY]).to_json()[1:-2]
            ),
        ),
        "",
    ),
    "a type that only looks like a point": (documents()[2], ""),
    **UNWRITABLE,
}


@pytest.mark.parametrize("name", UNACCEPTABLE)
def test_a_point_that_no_receiver_would_accept_is_found_before_it_is_sent(name: str) -> None:
    point, field = UNACCEPTABLE[name]
    with pytest.raises(EncodeError) as caught:
        check_points([SYSTEM, LATENCY, point])
    assert (caught.value.index, caught.value.field) == (2, field)


def test_good_points_of_all_groups_pass_the_check() -> None:
    check_points([])
    check_points([*EXAMPLE, AGENT, *latency_batch(50)])
    check_points([replace(LATENCY, data=msgspec.Raw(b'{"peer_id":"peer-abc-123","rtt_nano":1}'))])


def test_the_error_is_the_first_bad_points() -> None:
    bad: Callable[[int], MetricPoint] = lambda rtt: with_data(LATENCY, rtt_nano=rtt)  # noqa: E731
    with pytest.raises(EncodeError) as caught:
        check_points([LATENCY, bad(-2), bad(-3)])
    assert caught.value.index == 1
    body = json.dumps([*documents()[:1], *[{"group": "latency"}] * 2]).encode()
    with pytest.raises(DecodeError) as refused:
        decode_batch(body)
    assert refused.value.index == 1
