"""The front's end of the sockets, over tables that end, refuse or say nothing."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from plexd_server.errors import FilesReplaced, StartError, StoreClosed, StoreError
from plexd_server.store.embedded import link as link_module
from plexd_server.store.embedded import questions as ask
from plexd_server.store.embedded.link import TablesLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behaviour = Callable[[ask.AnyQuestion], object]


class Hangup(Exception):  # noqa: N818 -- what a scripted end does
    """Ends the scripted tables, as a kill does."""


class ScriptedTables:
    """Answers as it is told; every start is one of these."""

    def __init__(self, behave: Behaviour, asked: list[ask.AnyQuestion]) -> None:
        self.connection, self._theirs = socket.socketpair()
        self._behave = behave
        self._asked = asked
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._theirs:
            while frame := ask.receive_frame(self._theirs):
                number, body = frame
                question = ask.decode_question(body).question
                self._asked.append(question)
                try:
                    answer = ask.encode_answer(self._behave(question))
                except Hangup:
                    return
                except Exception as err:  # noqa: BLE001 -- it crosses, whatever it is
                    answer = ask.encode_error(err)
                self._theirs.sendall(ask.encode_frame(number, answer))

    def end(self) -> str:
        self._thread.join()
        return "ended"


class Scene:
    """A link, what its tables do, and what they were asked."""

    def __init__(self) -> None:
        self.behave: Behaviour = lambda question: 7 if isinstance(question, ask.Open) else None
        self.asked: list[ask.AnyQuestion] = []
        self.starts = 0
        self.fault: Exception | None = None
        self.link = TablesLink(
            self._start, check=self._check, durable=lambda: 9, loaded=lambda _: None
        )

    def _start(self) -> ScriptedTables:
        self.starts += 1
        return ScriptedTables(self._behave, self.asked)

    def _behave(self, question: ask.AnyQuestion) -> object:
        return self.behave(question)

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def open(self) -> int:
        return self.link.open(ask.Open("/d", "256MB"))

    def kill(self) -> None:
        line = self.link._line
        assert line is not None
        line.hang_up()
        line.wait()

    def questions(self, kind: type) -> int:
        return sum(isinstance(question, kind) for question in self.asked)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(link_module, "_AGAIN_SECONDS", 0.01)
    made = Scene()
    yield made
    if made.starts:
        made.link.close()


def test_tables_that_do_not_open_end_the_start_with_their_reason(scene: Scene) -> None:
    def refuse(_: ask.AnyQuestion) -> None:
        raise StartError("points.duckdb is damaged")

    scene.behave = refuse

    with pytest.raises(StartError, match=r"points\.duckdb is damaged"):
        scene.open()
    assert scene.starts == 1


def test_tables_that_end_as_they_start_end_the_start(scene: Scene) -> None:
    def die(_: ask.AnyQuestion) -> None:
        raise Hangup

    scene.behave = die

    with pytest.raises(StartError, match="the process of the tables ended"):
        scene.open()


def test_tables_that_died_follow_again_after_what_they_have(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    assert scene.open() == 7
    scene.link.follow(5)
    scene.kill()

    scene.link.ask(ask.Check())
    scene.link.close()
    follows = [question for question in scene.asked if isinstance(question, ask.Follow)]
    assert follows == [ask.Follow(5), ask.Follow(7)]
    said = [(record.message, vars(record)["what"]) for record in caplog.records]
    assert said == [("the store fails", "tables"), ("the store works again", "tables")]


def test_a_question_that_kills_the_tables_is_asked_twice_and_then_refused(scene: Scene) -> None:
    def behave(question: ask.AnyQuestion) -> object:
        if isinstance(question, ask.FindMarks):
            raise Hangup
        return 7 if isinstance(question, ask.Open) else None

    scene.behave = behave
    scene.open()

    with pytest.raises(StoreError, match="try again in a moment"):
        scene.link.ask(ask.FindMarks("n1"))
    assert scene.questions(ask.FindMarks) == 2
    scene.link.ask(ask.Check())


def test_a_question_does_not_wait_for_tables_that_were_away_too_long(scene: Scene) -> None:
    scene.open()
    scene.fault = FilesReplaced("not in their place")
    scene.kill()

    for away in (0.0, 0.02):
        with pytest.raises(StoreError, match="try again in a moment"):
            scene.link.ask(ask.Check(), away=away)
    assert scene.starts == 1
    scene.fault = None
    scene.link.ask(ask.Check())
    assert scene.starts == 2


def test_a_question_that_is_not_answered_in_time_holds_up_no_other(scene: Scene) -> None:
    go_on = threading.Event()

    def behave(question: ask.AnyQuestion) -> object:
        if isinstance(question, ask.FindMarks):
            go_on.wait(10)
            return []
        return 7 if isinstance(question, ask.Open) else None

    scene.behave = behave
    scene.open()
    with pytest.raises(StoreError, match="takes too long"):
        scene.link.ask(ask.FindMarks("n1"), seconds=0.01)

    go_on.set()
    scene.link.ask(ask.Check())


def test_a_closed_link_starts_nothing_and_answers_nothing(scene: Scene) -> None:
    scene.open()
    scene.link.close()
    scene.link.close()

    with pytest.raises(StoreClosed):
        scene.link.ask(ask.Check())
    assert scene.starts == 1


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (FilesReplaced("gone"), FilesReplaced, "gone"),
        (StoreError("no"), StoreError, "no"),
        (ValueError("not a field"), ValueError, "not a field"),
        (ZeroDivisionError("a secret of the inside"), StoreError, "the server's log says why"),
    ],
)
def test_errors_cross_as_those_of_the_port(
    scene: Scene, error: Exception, kind: type[Exception], text: str
) -> None:
    scene.open()

    def fail(_: ask.AnyQuestion) -> None:
        raise error

    scene.behave = fail

    with pytest.raises(kind, match=text):
        scene.link.ask(ask.Check())
