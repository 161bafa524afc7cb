"""A secret is printed nowhere; it still equals the text it holds."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from plexd import api, metrics
from plexd.api import Config, LocalEndpointConfig, Registration, Secret

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "hunter2-canary"
SECRET = Secret(CANARY)

SHOWN: dict[str, Callable[[object], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "f-string": lambda s: f"{s}",
    "f-string !r": lambda s: f"{s!r}",
    "format with a width": lambda s: f"{s:>40}",
    "format": "{}".format,
    "percent s": lambda s: "%s" % s,  # noqa: UP031  # the very thing tested
    "percent r": lambda s: "%r" % s,  # noqa: UP031  # the same
    "pprint": pprint.pformat,
    "in a list": lambda s: str([s]),
    "in a dict": lambda s: f"{ {'token': s} }",
    "in an exception": lambda s: "".join(traceback.format_exception_only(ValueError(s))),
}


@pytest.mark.parametrize("way", SHOWN)
def test_a_secret_never_shows(way: str) -> None:
    shown = SHOWN[way](SECRET)
    assert CANARY not in shown
    assert "[redacted]" in shown


def test_a_secret_never_shows_in_what_is_made_of_it() -> None:
    endpoint = LocalEndpointConfig("https://x", SECRET)
    made = [
        ",".join([str(1), SECRET]),
        "token " + SECRET,
        json.dumps([SECRET]),
        json.dumps(dataclasses.asdict(endpoint)),
        SECRET.encode().decode(),
        SECRET.upper().lower(),
    ]
    for text in made:
        assert CANARY not in text
        assert "[redacted]" in text


def test_a_secret_never_shows_in_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("token %s, %r", SECRET, SECRET)
    assert caplog.messages == ["token [redacted], '[redacted]'"]


def test_a_secret_never_shows_in_what_print_writes() -> None:
    out = io.StringIO()
    print(SECRET, file=out)
    assert out.getvalue() == "[redacted]\n"


def test_msgspec_refuses_to_dump_a_secret() -> None:
    for dump in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError, match="Secret") as caught:
            dump({"token": SECRET})
        assert CANARY not in str(caught.value)


def test_an_empty_secret_shows_that_nothing_is_set() -> None:
    empty = Secret("")
    assert (str(empty), repr(empty), f"{empty:>2}") == ("", "''", "  ")
    assert not Secret()


def test_a_secret_is_the_text_it_holds() -> None:
    assert SECRET == CANARY
    assert hash(SECRET) == hash(CANARY)
    assert SECRET != "[redacted]"
    assert SECRET != 5
    assert type(SECRET.reveal()) is str
    assert SECRET.reveal() == CANARY


def test_a_secret_made_of_a_secret_keeps_its_text() -> None:
    assert Secret(Secret(Secret(CANARY))).reveal() == CANARY


def test_a_copied_secret_is_the_same_secret() -> None:
    for twin in (copy.copy(SECRET), copy.deepcopy(SECRET)):
        assert type(twin) is Secret
        assert twin.reveal() == CANARY


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(SECRET)


CONFIGS = [
    Config("https://plane.example", auth_token=CANARY),
    LocalEndpointConfig("https://local.example", secret_key=CANARY),
    metrics.Config(local_endpoint=LocalEndpointConfig("https://local.example", CANARY)),
    Registration("node-1", "10.0.0.1", CANARY, CANARY, []),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_holds_a_secret_redacts_it(config: object) -> None:
    for way in SHOWN.keys() - {"format with a width"}:
        assert CANARY not in SHOWN[way](config)
    assert "[redacted]" in repr(config)


def test_a_traceback_that_quotes_a_configuration_redacts_it() -> None:
    try:
        raise ValueError(CONFIGS[0])  # noqa: TRY301  # a traceback is what is tested
    except ValueError:
        assert "[redacted]" in traceback.format_exc()
        assert CANARY not in traceback.format_exc()


def test_a_configuration_dumped_as_builtins_redacts_its_secret() -> None:
    dumped = dataclasses.asdict(Config("https://plane.example", auth_token=CANARY))
    assert "[redacted]" in str(dumped)
    assert CANARY not in str(dumped)


def test_a_changed_copy_of_a_configuration_keeps_its_secret() -> None:
    config = Config("https://plane.example", auth_token=CANARY)
    changed = dataclasses.replace(config, request_timeout=timedelta(seconds=1))
    assert changed.auth_token == CANARY
    endpoint = dataclasses.replace(LocalEndpointConfig("https://l", CANARY), url="https://m")
    assert endpoint.secret_key == CANARY


def test_a_registration_shows_everything_that_is_no_secret() -> None:
    shown = repr(Registration("node-1", "10.0.0.1", "k" * 32, "t", [api.Peer("p", "pk", "ip")]))
    assert "node-1" in shown
    assert "10.0.0.1" in shown
    assert "Peer(id='p'" in shown
