"""A control plane that remembers everything: what came, under which name, and how often.

It implements the receiver's half of the delivery contract on its own, so that the agent is not
tested only against the server it was written with.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from plexd.api import BatchName, Predecessor
from support.marks import Marks

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["ACCEPT", "Answer", "Oracle", "Report"]

_TIMEOUT_SECONDS = 10
_POINTS = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Answer:
    """How to answer one report.

    With a 2xx ``status`` the points are accepted before anything fails: ``cut_at`` resets the
    connection after that many bytes of the answer (0: no byte is sent). ``delay`` passes before the
    answer.
    """

    status: int = 200
    retry_after: str = ""
    delay: float = 0.0
    cut_at: int | None = None


ACCEPT = Answer()


@dataclass(frozen=True, slots=True)
class Report:
    """One report as it arrived; ``attempt`` counts all reports of all nodes from 1."""

    attempt: int
    node: str
    name: BatchName
    after: Predecessor
    dropped: int
    points: tuple[bytes, ...]


@dataclass(slots=True)
class _Node:
    marks: Marks = field(default_factory=Marks)
    points: list[bytes] = field(default_factory=list)
    duplicates: int = 0
    repeated: int = 0


Script = Callable[[Report], Answer]


class Oracle:
    """A server on its own thread; a context manager. ``answers`` says how to answer.

    ``contradictions`` holds every breach of the contract: a report without a name, with other bytes
    under a name that was used before, or after an epoch that never came.
    """

    def __init__(self, answers: Script = lambda _: ACCEPT) -> None:
        self.answers = answers
        self.contradictions: list[str] = []
        self.attempts = 0
        self._nodes: defaultdict[str, _Node] = defaultdict(_Node)
        self._changed = threading.Condition()
        self._digests: dict[tuple[str, str, int], bytes] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="oracle")
        self._runner: web.ServerRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    def points(self, node: str) -> list[bytes]:
        """Return the JSON of every point that had an effect, in order."""
        return list(self._nodes[node].points)

    def lost(self, node: str) -> int:
        """Return how many points are missing, by their names or by the node's own account."""
        return self._nodes[node].marks.lost

    def duplicates(self, node: str) -> int:
        """Return how many reports had no effect because all of their points came before."""
        return self._nodes[node].duplicates

    def repeated(self, node: str) -> int:
        """Return how many points came again, and had no effect."""
        return self._nodes[node].repeated

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition, checked after every report, holds. Blocks; bounded."""
        with self._changed:
            assert self._changed.wait_for(condition, _TIMEOUT_SECONDS), "it never came to that"

    def epochs(self, node: str) -> int:
        return len(self._nodes[node].marks)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"peers": []})
        report = self._read(request, await request.content.read())
        if report is None:
            return web.Response(status=400, text="no name")
        answer = self.answers(report)
        with self._changed:
            if 200 <= answer.status < 300:
                self._accept(report)
            self._changed.notify_all()
        await asyncio.sleep(answer.delay)
        if answer.cut_at is not None:
            return _cut(request, answer)
        headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
        return web.Response(status=answer.status, headers=headers)

    def _read(self, request: web.BaseRequest, body: bytes) -> Report | None:
        self.attempts += 1
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        points = tuple(map(bytes, _POINTS.decode(body)))
        headers = request.headers
        try:
            name = BatchName.parse(headers.get("Plexd-Batch", ""))
            after = Predecessor.parse(headers.get("Plexd-After", "none;skipped=0"))
            dropped = int(headers.get("Plexd-Dropped", ""))
        except ValueError as err:
            self.contradictions.append(f"no name: {dict(headers)}: {err}")
            return None
        node = request.path.split("/")[3]
        report = Report(self.attempts, node, name, after, dropped, points)
        self._compare(report)
        return report

    def _compare(self, report: Report) -> None:
        """Check that the points fit their name, and that the name had no other bytes before."""
        if len(report.points) != report.name.points:
            self.contradictions.append(f"{len(report.points)} points are not {report.name}")
        for number, point in enumerate(report.points, report.name.first):
            place = (report.node, report.name.epoch, number)
            digest = hashlib.sha256(point).digest()
            if self._digests.setdefault(place, digest) != digest:
                self.contradictions.append(f"other bytes at {place}")

    def _accept(self, report: Report) -> None:
        """Store the part of the report beyond the mark, if any."""
        node = self._nodes[report.node]
        try:
            known = node.marks.receive(report.name, report.after, report.dropped)
        except AssertionError as err:
            self.contradictions.append(str(err))
            return
        node.duplicates += known == len(report.points)
        node.repeated += known
        node.points += report.points[known:]

    async def _start(self) -> None:
        server = web.Server(self._serve, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        late = asyncio.all_tasks() - {asyncio.current_task()}
        for task in late:  # answers with a delay
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_TIMEOUT_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_TIMEOUT_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _cut(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    transport = request.transport
    if transport is not None and not transport.is_closing():
        whole = f"HTTP/1.1 {answer.status} OK\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        transport.write(whole[: answer.cut_at])
        transport.abort()
    raise asyncio.CancelledError
