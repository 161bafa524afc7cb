"""Settings from the environment: ``PLEXD_SECTION_KEY`` for every scalar key.

An unknown variable is a warning and not an error, because others write into the same namespace:
Kubernetes gives every container ``PLEXD_PORT`` and ``PLEXD_SERVICE_HOST`` as soon as a service is
called ``plexd``. ``PLEXD_SERVER_*`` belongs to the server and is ignored, as is the token that
``plexd register`` reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.agent.config.keys import KEYS, PEERS, Given, variable
from plexd.agent.errors import SettingsError
from plexd.text import nearest, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NO_SETTING = "PLEXD_TOKEN"
_PATHS = {variable(path): path for path in KEYS}


def read_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """The settings in ``environ``, by key. Raises `SettingsError` naming the variable."""
    return {
        path: Given(_value(name, path, environ[name]), name)
        for name, path in _PATHS.items()
        if name in environ
    }


def _value(name: str, path: str, text: str) -> object:
    try:
        return KEYS[path].kind.parse(text)
    except ValueError as err:
        raise SettingsError(name, "", str(err)) from None


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one sentence for each variable that looks like a setting and is none."""
    for name in sorted(environ):
        if not name.startswith("PLEXD_") or name.startswith("PLEXD_SERVER_") or name in _PATHS:
            continue
        if name == _NO_SETTING:
            continue
        if name == variable(PEERS):
            yield f"{name}: ignored; peers can only be listed in the configuration file"
        else:
            yield f"{printable(name)}: unknown variable, ignored{nearest(name, _PATHS)}"
