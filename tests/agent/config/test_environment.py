from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.agent.config.environment import read_environment, unknown_variables
from plexd.agent.config.keys import KEYS, variable
from plexd.agent.config.settings import Settings, load_settings
from plexd.agent.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_key_has_a_variable_of_its_own() -> None:
    assert len({variable(path) for path in KEYS}) == len(KEYS)
    assert variable("metrics.local_endpoint.url") == "PLEXD_METRICS_LOCAL_ENDPOINT_URL"


def test_every_scalar_key_can_be_set_from_the_environment() -> None:
    environ = {variable(key.path): key.default for key in KEYS.values()}
    settings = load_settings(None, environ)
    assert settings == Settings()
    assert settings.origins == {key: variable(key) for key in KEYS}


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    config_file: Callable[[str], Path],
) -> None:
    path = config_file("metrics: {collect_interval: 20s, batch_size: 7}")
    settings = load_settings(path, {"PLEXD_METRICS_COLLECT_INTERVAL": "30s"})
    assert settings.metrics.collect_interval == timedelta(seconds=30)
    assert settings.metrics.batch_size == 7
    assert settings.metrics.report_interval == timedelta(seconds=60)


def test_a_wrong_file_stays_wrong_where_the_environment_covers_it(
    config_file: Callable[[str], Path],
) -> None:
    with pytest.raises(SettingsError, match=r":1: metrics\.batch_size"):
        load_settings(config_file("metrics: {batch_size: x}"), {"PLEXD_METRICS_BATCH_SIZE": "5"})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PLEXD_METRICS_BATCH_SIZE", "x", 'expected a whole number, found "x"'),
        ("PLEXD_METRICS_ENABLED", "1", 'expected true or false, found "1"; write true'),
        (
            "PLEXD_METRICS_COLLECT_INTERVAL",
            "15",
            'expected a duration such as 15s or 1m30s, found "15"; write 15s',
        ),
        (
            "PLEXD_METRICS_COLLECT_INTERVAL",
            "1s",
            "metrics.collect_interval: must be at least 5s",
        ),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {name: value})
    assert str(caught.value) == f"{name}: {complaint}"


def test_an_unknown_variable_is_a_warning_that_names_the_nearest() -> None:
    environ = {
        "PATH": "/bin",
        "PLEXD_DATA_DIR": "/x",
        "PLEXD_LOG_LEVL": "1",
        "PLEXD_PEERS": "[]",
        "PLEXD_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PLEXD_SERVER_LISTEN": "",
        "PLEXD_\n": "",
    }
    load_settings(None, environ)
    assert list(unknown_variables(environ)) == [
        "PLEXD_\\n: unknown variable, ignored",
        "PLEXD_LOG_LEVL: unknown variable, ignored; did you mean PLEXD_LOG_LEVEL?",
        "PLEXD_PEERS: ignored; peers can only be listed in the configuration file",
        "PLEXD_PORT_80_TCP: unknown variable, ignored",
    ]


@given(st.sampled_from(sorted(KEYS)), st.text(max_size=30) | st.text("0123456789.smhd", max_size=9))
def test_any_value_loads_or_is_one_sentence(path: str, value: str) -> None:
    complaint = _complaint({variable(path): value})
    assert complaint.isprintable()
    assert not complaint or complaint.startswith(f"{variable(path)}: ")


def _complaint(environ: dict[str, str]) -> str:
    try:
        load_settings(None, environ)
    except SettingsError as err:
        return str(err)
    return ""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_one_line_break_behind_a_secret_is_trimmed(end: str) -> None:
    given = read_environment({"PLEXD_API_AUTH_TOKEN": f"hunter2{end}"})
    assert given["api.auth_token"].value.reveal() == "hunter2"
    with pytest.raises(SettingsError, match="must be printable ASCII") as caught:
        read_environment({"PLEXD_API_AUTH_TOKEN": f"hunter2{end}{end}"})
    assert "hunter2" not in str(caught.value)
