"""The kinds of settings: how each is parsed from text and written as YAML.

A kind's ``parse`` raises `ValueError` with a text that completes the sentence ``KEY: ...``. It
quotes the value, unless the value may hold a secret.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from plexd.api import Secret, check_zone, parse_proxy, with_plain_zone
from plexd.text import bare, nearest, quoted, with_scheme
from plexd.units import format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

_T = TypeVar("_T")

_PLAIN = re.compile(r"[A-Za-z/](?:[A-Za-z0-9_./:+-]*[A-Za-z0-9_/])?", re.ASCII)
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_BOOLEANS = dict.fromkeys(("true", "yes", "y", "on", "1"), "true") | dict.fromkeys(
    ("false", "no", "n", "off", "0"), "false"
)
_INTERFACE = re.compile(r"[^\s/:]+")
# Each part of a name fits into a question to a name server (RFC 1035, 2.3.4).
_HOST = re.compile(r"(?=.{1,254}\Z)(?:[\w-]{1,63}\.)*[\w-]{1,63}\.?", re.ASCII)
_USERINFO = re.compile(r"[^/?#]*//[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value; ``parse`` reads what ``yaml`` writes.

    A ``typed`` kind refuses quotes in the file, where ``"100"`` is text and not a number.
    """

    name: str
    parse: Callable[[str], Any]
    yaml: Callable[[Any], str]
    typed: bool = False


def has_userinfo(url: str) -> bool:
    """Whether ``url`` contains a user or password, in any form that a URL parser may accept."""
    return _USERINFO.match(url) is not None


def duration(minimum: timedelta, maximum: timedelta) -> Kind:
    """A time span with its unit, within bounds."""

    def parse(text: str) -> timedelta:
        value = _measured(text, parse_duration, "a duration such as 15s or 1m30s")
        if value < minimum:
            raise ValueError(f"must be at least {format_duration(minimum)}")
        if value > maximum:
            raise ValueError(f"must be at most {format_duration(maximum)}")
        return value

    return Kind("a duration", parse, format_duration)


def size(minimum: int, maximum: int) -> Kind:
    """A number of bytes, with or without a unit, within bounds."""

    def parse(text: str) -> int:
        value = _measured(text, parse_size, "a size such as 256MiB or 1GiB")
        if value < minimum:
            raise ValueError(f"must be at least {format_size(minimum)}")
        if value > maximum:
            raise ValueError(f"must be at most {format_size(maximum)}")
        return value

    return Kind("a size", parse, format_size)


def whole(maximum: int) -> Kind:
    """A whole number; its component checks the lower bound."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError(f"expected a whole number, found {quoted(text)}")
        if int(text) > maximum:
            raise ValueError(f"must be at most {maximum}")
        return int(text)

    return Kind("a whole number", parse, str, typed=True)


def choice(*names: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in names:
            lower = text.lower()
            hint = f"; write {lower}" if lower in names else nearest(lower, names)
            raise ValueError(f"expected one of {', '.join(names)}, found {quoted(text)}{hint}")
        return text

    return Kind(" or ".join(names), parse, _yaml_text)


def path(*, optional: bool) -> Kind:
    """An absolute path; or an empty text, if ``optional``."""

    def parse(text: str) -> str:
        if optional and not text:
            return text
        if not text.startswith("/"):
            found = f"{quoted(text)} (~ and variables are not expanded)"
            raise ValueError(f"expected an absolute path, found {found}")
        return _parse_text(text)

    return Kind("an absolute path", parse, _yaml_text)


def interface(*, optional: bool, longest: int = 15) -> Kind:
    """The name of a network interface, as Linux accepts it, in bytes at most ``longest``."""

    def parse(text: str) -> str:
        is_name = text.isprintable() and _INTERFACE.fullmatch(text) and text not in {".", ".."}
        if (is_name and len(text.encode()) <= longest) or (optional and not text):
            return text
        raise ValueError(f"expected the name of a network interface, found {quoted(text)}")

    return Kind("the name of a network interface", parse, _yaml_text)


def _measured(text: str, parse: Callable[[str], _T], expected: str) -> _T:
    try:
        return parse(text)
    except ValueError as err:
        hint = f"; {err}" if str(err) else ""
        raise ValueError(f"expected {expected}, found {quoted(text)}{hint}") from None


def _parse_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain line breaks or other control characters")
    return text


def _parse_boolean(text: str) -> bool:
    # YAML 1.1 has eleven words for each; a reader should not have to know them.
    if text not in {"true", "false"}:
        meant = _BOOLEANS.get(text.lower())
        hint = f"; write {meant}" if meant else ""
        raise ValueError(f"expected true or false, found {quoted(text)}{hint}")
    return text == "true"


def parse_secret(text: str) -> Secret:
    """A secret, as `bare` has it. Raises `ValueError`, which never quotes it."""
    text = bare(text)
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("must be printable ASCII without spaces (the value is not shown)")
    return Secret(text)


def _parse_proxy_address(text: str) -> str:
    text = bare(text)
    parse_proxy(text)
    return Secret(text) if has_userinfo(text) else text


def _parse_web_address(text: str) -> str:
    if has_userinfo(text):
        raise ValueError("must not contain a user or password; use api.auth_token")
    if text and not _is_web_address(text):
        expected = "an address such as https://plane.example"
        raise ValueError(f"expected {expected}, found {quoted(text)}{with_scheme(text)}")
    check_zone(text)
    return with_plain_zone(text)


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_name = "[" not in parts.netloc  # what is in brackets, `check_zone` looks at
        reachable = bool(parts.hostname) and parts.port != 0
        reachable &= not is_name or bool(_HOST.fullmatch(parts.hostname or ""))
    except ValueError:
        return False
    # As the client has it, which sends nothing but ASCII.
    clean = not re.search(r"[^\x21-\x7e]|[?#\\]", text)
    return reachable and clean and parts.scheme in {"http", "https"}


def _yaml_text(value: str) -> str:
    """A scalar, quoted if YAML would read another value. A secret is redacted."""
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


BOOLEAN = Kind("true or false", _parse_boolean, json.dumps, typed=True)
SECRET = Kind("text", parse_secret, _yaml_text)
TEXT = Kind("text", _parse_text, _yaml_text)
PROXY_ADDRESS = Kind("an address", _parse_proxy_address, _yaml_text)
WEB_ADDRESS = Kind("an address", _parse_web_address, _yaml_text)
