from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from plexd.agent.config.keys import KEYS
from plexd.agent.config.settings import load_settings
from plexd.agent.config.show import show_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str], Path]
    Golden = Callable[[str, str], None]


def test_the_defaults_look_as_recorded(golden: Golden) -> None:
    golden("show_defaults.yaml", show_settings(load_settings(None, {})))


def test_a_full_configuration_looks_as_recorded(
    config_file: Write, full_sample: str, golden: Golden
) -> None:
    path = config_file(full_sample)
    environ = {"PLEXD_METRICS_BATCH_SIZE": "7", "PLEXD_SYSTEM_NET_IFACE": "no"}
    text = show_settings(load_settings(path, environ))
    golden("show_full.yaml", text.replace(str(path), "/etc/plexd/config.yaml"))


def test_secrets_are_redacted(config_file: Write, full_sample: str) -> None:
    text = show_settings(load_settings(config_file(full_sample), {}))
    assert "plain-token-of-the-node" not in text
    assert "local-metrics-token" not in text
    assert text.count('"[redacted]"') == 2


def test_what_is_shown_can_be_read_back(config_file: Write, full_sample: str) -> None:
    for text in ("", full_sample):
        settings = load_settings(config_file(text), {})
        again = load_settings(config_file(show_settings(settings)), {})
        redacted = {"api.auth_token", "metrics.local_endpoint.secret_key"} if text else set()
        for key in set(KEYS) - redacted:
            assert again.value(key) == settings.value(key)
        assert again.peers == settings.peers


@pytest.mark.parametrize(
    "value", ["yes", "null", "a: b", "a #b", "'", '"', "\\", "-", "[x]", "é", "0x1", "1_0", "a\ta"]
)
def test_text_that_yaml_would_misread_is_quoted(config_file: Write, value: str) -> None:
    path = f"/{value}"
    environ = {"PLEXD_DATA_DIR": path} if value.isprintable() else {}
    text = show_settings(load_settings(None, environ))
    again = load_settings(config_file(text), {})
    assert again.data_dir == Path(environ.get("PLEXD_DATA_DIR", "/var/lib/plexd"))


@pytest.mark.parametrize("value", ["yes", "null", "on", "0x1", "12", "1e3", "~", "n"])
def test_a_word_stays_text_for_other_readers_of_the_yaml(value: str) -> None:
    text = show_settings(load_settings(None, {"PLEXD_SYSTEM_NET_IFACE": value}))
    assert yaml.safe_load(text)["system"]["net_iface"] == value
