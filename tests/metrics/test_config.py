"""The configuration against every row of the seed's validation tables, word by word."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from plexd.api import LocalEndpointConfig
from plexd.metrics import Config, ConfigError

PREFIX = "metrics: config: local_endpoint:"


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def complaint(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        replace(Config(), **changes).validate()
    return str(caught.value)


def endpoint_complaint(url: str, secret_key: str = "token") -> str:
    return complaint(local_endpoint=LocalEndpointConfig(url, secret_key))


def test_the_defaults_are_the_specifications_and_valid() -> None:
    config = Config()
    assert config.enabled
    assert config.collect_interval == seconds(15)
    assert config.report_interval == seconds(60)
    assert config.batch_size == 100
    assert config.local_endpoint == LocalEndpointConfig("", "", tls_insecure_skip_verify=False)
    config.validate()


def test_collect_interval_must_be_at_least_5s() -> None:
    words = "metrics: config: CollectInterval must be at least 5s"
    assert complaint(collect_interval=seconds(4.999)) == words
    Config(collect_interval=seconds(5)).validate()


def test_report_interval_must_be_at_least_10s() -> None:
    words = "metrics: config: ReportInterval must be at least 10s"
    assert complaint(collect_interval=seconds(5), report_interval=seconds(9.999)) == words
    Config(collect_interval=seconds(5), report_interval=seconds(10)).validate()


def test_report_interval_must_not_be_below_collect_interval() -> None:
    words = "metrics: config: ReportInterval must be >= CollectInterval"
    assert complaint(collect_interval=seconds(60), report_interval=seconds(59)) == words
    Config(collect_interval=seconds(60), report_interval=seconds(60)).validate()


@pytest.mark.parametrize("size", [0, -1])
def test_batch_size_must_be_above_0(size: int) -> None:
    assert complaint(batch_size=size) == "metrics: config: BatchSize must be > 0"
    Config(batch_size=1).validate()


@pytest.mark.parametrize(
    "url",
    [
        "://metrics.local",
        "https://[::1",
        "https://metrics.local:port/",
        "https://metrics.local/%zz",
        "https://metrics.local/\n",
        "https://metrics .local/",
        "https://",
        "https:///ingest",
    ],
)
def test_a_local_endpoints_url_must_be_parseable(url: str) -> None:
    assert endpoint_complaint(url) == f'{PREFIX} invalid URL "{url}"'


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("http://metrics.local:9090/ingest", "http"),
        ("ftp://metrics.local", "ftp"),
        ("metrics.local", ""),
        ("not a url", ""),
    ],
)
def test_a_local_endpoints_scheme_must_be_https(url: str, scheme: str) -> None:
    assert endpoint_complaint(url) == f'{PREFIX} URL must be HTTPS, got "{scheme}"'


def test_a_local_endpoint_needs_a_secret_key() -> None:
    words = f"{PREFIX} SecretKey is required when URL is set"
    assert endpoint_complaint("https://metrics.local:9090/ingest", "") == words
    Config(local_endpoint=LocalEndpointConfig("https://metrics.local/", "token")).validate()


def test_a_zero_valued_local_endpoint_means_not_configured() -> None:
    Config(local_endpoint=LocalEndpointConfig()).validate()
    Config(local_endpoint=LocalEndpointConfig(secret_key="unused")).validate()


def test_a_disabled_pipeline_is_not_validated_at_all() -> None:
    Config(
        enabled=False,
        collect_interval=seconds(0),
        report_interval=seconds(-1),
        batch_size=0,
        local_endpoint=LocalEndpointConfig("http://[::1"),
    ).validate()


def test_the_first_fault_is_reported() -> None:
    assert "CollectInterval" in complaint(collect_interval=seconds(1), batch_size=0)
