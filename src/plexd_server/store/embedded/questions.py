"""What the front asks the tables, and how question and answer cross a pair of sockets.

    frame       length u32 | number u64 | body, little-endian; ``length`` is that of the body
    question    MessagePack array: the number of the last durable record, and the question, which
                begins with its name. The tables load up to that record before they answer
    answer      the question's number; a byte, 0 and the value, or 1 and an array of the error's
                name and text. Answers come in any order
    number 0    is no question: from the front the last durable record, from the tables the last one
                of which everything is in its tables

Both ends are of one version, one command and one user, so nothing here is ever migrated.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta  # noqa: TC003 -- msgspec reads the annotations
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct

from plexd_server.errors import FilesReplaced, StartError, StoreBusy, StoreClosed, StoreError
from plexd_server.store.embedded.mark_cache import KnownMarks, LastReport
from plexd_server.store.marks import Mark
from plexd_server.store.payloads import PAYLOADS
from plexd_server.store.port import Loss, NodeSummary, Series, SeriesQuery, StoredPoint

if TYPE_CHECKING:
    import socket

T = TypeVar("T")

NOTICE: Final = 0
_HEAD: Final = struct.Struct("<IQ")
_VALUE, _ERROR = b"\0", b"\1"
_ERRORS: Final[dict[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (StoreError, StoreBusy, StoreClosed, FilesReplaced, StartError, ValueError)
}


class Question(Struct, Generic[T], frozen=True, array_like=True, tag=True):
    """A question whose answer is a ``T``."""


class Open(Question[int], frozen=True, tag=True):
    """Open the database, made if need be; the last record in it. The first question.

    Attributes:
        data_dir: where it is.
        memory: DuckDB's limit, such as ``256MB``.
    """

    data_dir: str
    memory: str


class Follow(Question[None], frozen=True, tag=True):
    """Load the records of the journal after ``position``, from now on."""

    position: int


class LoadOld(Question[int], frozen=True, tag=True):
    """Load all records after ``position`` at once, those of earlier releases too; the last one."""

    position: int


class FindKnown(Question[KnownMarks], frozen=True, tag=True):
    """Find what a start has to know of all marks."""

    salt: str


class FindMark(Question[Mark | None], frozen=True, tag=True):
    """Find the mark of an epoch."""

    node_id: str
    epoch: str


class FindMarks(Question[list[Mark]], frozen=True, tag=True):
    """Find all marks of a node."""

    node_id: str


class ReadAccount(Question[tuple[list[Mark], list[Loss]]], frozen=True, tag=True):
    """Read what a node's ledger is made of."""

    node_id: str


class ReadLatest(Question[list[StoredPoint]], frozen=True, tag=True):
    """Read the newest points of a node."""

    node_id: str
    last: LastReport | None


class ReadSeries(Question[Series], frozen=True, tag=True):
    """Read fields over time."""

    query: SeriesQuery


class ReadFleet(Question[list[NodeSummary]], frozen=True, tag=True):
    """Read a summary of every node; ``last`` has their last reports."""

    last: dict[str, LastReport]


class Expire(Question[int], frozen=True, tag=True):
    """Remove old points and rollups, as `Store.expire` does."""

    now: datetime
    keep: timedelta
    keep_rollups: timedelta | None


class Check(Question[None], frozen=True, tag=True):
    """See whether the tables can be read and loaded."""


class Hold(Question[None], frozen=True, tag=True):
    """Leave the database's file alone, with everything in it, until `Release`."""


class Release(Question[None], frozen=True, tag=True):
    """End what `Hold` began."""


class Finish(Question[int], frozen=True, tag=True):
    """Load what there is, put all of it into the database's file, and stop; the last record."""


AnyQuestion = (
    Open | Follow | LoadOld | FindKnown | FindMark | FindMarks | ReadAccount | ReadLatest
    | ReadSeries | ReadFleet | Expire | Check | Hold | Release | Finish
)  # fmt: skip


class _CrossingPoint(Struct, array_like=True):
    """A stored point; ``data`` is MessagePack, or JSON as bytes for a group that is not known."""

    timestamp: datetime
    received_at: datetime
    group: str
    peer_id: str
    data: Raw

    @classmethod
    def of(cls, point: StoredPoint) -> _CrossingPoint:
        data: object = bytes(point.data) if isinstance(point.data, Raw) else point.data
        return cls(
            point.timestamp,
            point.received_at,
            point.group,
            point.peer_id,
            Raw(_ENCODER.encode(data)),
        )

    def stored(self) -> StoredPoint:
        kind = PAYLOADS.get(self.group, bytes)
        data: Any = _decoder(kind).decode(self.data)
        return StoredPoint(
            timestamp=self.timestamp,
            received_at=self.received_at,
            group=self.group,
            peer_id=self.peer_id,
            data=Raw(data) if kind is bytes else data,
        )


class _CrossingSummary(Struct, array_like=True):
    node_id: str
    received_at: datetime | None
    system: _CrossingPoint | None

    @classmethod
    def of(cls, node: NodeSummary) -> _CrossingSummary:
        system = None if node.system is None else _CrossingPoint.of(node.system)
        return cls(node.node_id, node.received_at, system)

    def summary(self) -> NodeSummary:
        return NodeSummary(
            self.node_id, self.received_at, self.system.stored() if self.system else None
        )


class Asked(NamedTuple):
    """A question as it arrives, and up to which record its answer has to know."""

    upto: int
    question: AnyQuestion


_ENCODER: Final = msgspec.msgpack.Encoder()
_QUESTIONS: Final = msgspec.msgpack.Decoder(Asked)
_ANSWERS: Final[dict[type, Any]] = {
    Open: int,
    Follow: None,
    LoadOld: int,
    FindKnown: KnownMarks,
    FindMark: Mark | None,
    FindMarks: list[Mark],
    ReadAccount: tuple[list[Mark], list[Loss]],
    ReadLatest: list[_CrossingPoint],
    ReadSeries: Series,
    ReadFleet: list[_CrossingSummary],
    Expire: int,
    Check: None,
    Hold: None,
    Release: None,
    Finish: int,
}


def encode_question(question: Question[Any], upto: int) -> bytes:
    """Return the body of a question's frame."""
    return _ENCODER.encode((upto, question))


def decode_question(body: bytes) -> Asked:
    """Return the question of a frame."""
    return _QUESTIONS.decode(body)


def encode_answer(value: object) -> bytes:
    """Return the body of an answer's frame."""
    if isinstance(value, list) and value and isinstance(value[0], StoredPoint):
        value = [_CrossingPoint.of(point) for point in value]
    elif isinstance(value, list) and value and isinstance(value[0], NodeSummary):
        value = [_CrossingSummary.of(node) for node in value]
    return _VALUE + _ENCODER.encode(value)


def encode_error(err: Exception) -> bytes:
    """Return the body of a frame for an error; one that is not of the port is none of its words."""
    for kind in type(err).__mro__:
        if kind.__name__ in _ERRORS:
            return _ERROR + _ENCODER.encode((kind.__name__, str(err)))
    return _ERROR + _ENCODER.encode(
        (StoreError.__name__, "the store failed; the server's log says why")
    )


def decode_answer(question: Question[T], body: bytes) -> T:
    """Return the answer to ``question``, or raise the error that came in its place."""
    kind, rest = body[:1], body[1:]
    if kind == _ERROR:
        name, text = _decoder(tuple[str, str]).decode(rest)
        raise _ERRORS[name](text)
    value: Any = _decoder(_ANSWERS[type(question)]).decode(rest)
    if isinstance(question, ReadLatest):
        value = [point.stored() for point in value]
    elif isinstance(question, ReadFleet):
        value = [node.summary() for node in value]
    answer: T = value
    return answer


def encode_frame(number: int, body: bytes) -> bytes:
    """Return a whole frame."""
    return _HEAD.pack(len(body), number) + body


def encode_notice(record: int) -> bytes:
    """Return the frame that says how far the journal, or the tables, are."""
    return encode_frame(NOTICE, _ENCODER.encode(record))


def decode_notice(body: bytes) -> int:
    """Return the record of such a frame."""
    return int(_decoder(int).decode(body))


def receive_frame(connection: socket.socket) -> tuple[int, bytes] | None:
    """Return the next frame's number and body; None at the end. Raises `OSError`."""
    head = _receive(connection, _HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, number = _HEAD.unpack(head)
    body = _receive(connection, length)
    return (number, body) if len(body) == length else None


def _receive(connection: socket.socket, length: int) -> bytes:
    """Return so many bytes, or fewer at the end."""
    received = bytearray()
    while len(received) < length and (piece := connection.recv(length - len(received))):
        received += piece
    return bytes(received)


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)
