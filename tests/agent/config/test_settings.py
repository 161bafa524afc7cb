from __future__ import annotations

import re
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.agent.config.keys import KEYS
from plexd.agent.config.kinds import SECRET
from plexd.agent.config.settings import Settings, load_settings
from plexd.agent.errors import SettingsError
from plexd.api import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str | bytes], Path]

KEY_B = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


def test_without_file_and_environment_everything_is_at_its_default() -> None:
    settings = load_settings(None, {})
    assert settings == Settings()
    assert not settings.origins


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "{}", "api:\nmetrics:\npeers:\n"]
)
def test_an_empty_file_or_section_means_the_defaults(config_file: Write, text: str) -> None:
    assert load_settings(config_file(text), {}) == Settings()


def test_a_full_file_sets_every_key(config_file: Write, full_sample: str) -> None:
    path = config_file(full_sample)
    settings = load_settings(path, {})
    assert set(settings.origins) == {*KEYS, "peers"}
    usual = {key for key in KEYS if settings.value(key) == Settings().value(key)}
    assert usual == {"metrics.enabled", "api.auth_token_file"}
    assert settings.data_dir == Path("/srv/plexd")
    assert settings.api.request_timeout == timedelta(seconds=90)
    assert settings.api.auth_token == "plain-token-of-the-node"
    assert settings.metrics.local_endpoint.secret_key == "local-metrics-token"
    assert settings.spool.max_bytes == 2**30
    assert settings.peers[0] == Peer("node-b", KEY_B, "10.99.0.2")
    assert settings.origins["ping.timeout"] == f"{path}:28"


def test_secrets_do_not_show_in_the_settings(config_file: Write, full_sample: str) -> None:
    settings = load_settings(config_file(full_sample), {})
    assert "plain-token" not in repr(settings) + str(settings) + f"{settings}"
    assert "local-metrics-token" not in repr(settings)


BAD_FILES = [
    ("batch_size: 1", "1: batch_size: unknown key; did you mean metrics.batch_size?"),
    ("metric:\n  enabled: true", "1: metric: unknown key; did you mean metrics?"),
    (
        "metrics:\n  colect_interval: 15s",
        "2: metrics.colect_interval: unknown key; did you mean metrics.collect_interval?",
    ),
    ("qqqq: 1", "1: qqqq: unknown key"),
    ('"q\\n": 1', '1: "q\\n": unknown key'),
    (
        "metrics.batch_size: 1",
        '1: "metrics.batch_size": unknown key; sections are nested by indentation, not by dots',
    ),
    ("metrics: {batch_size: many}", '1: metrics.batch_size: expected a whole number, found "many"'),
    ("metrics: {batch_size: 1.5}", '1: metrics.batch_size: expected a whole number, found "1.5"'),
    (
        'metrics: {batch_size: "100"}',
        '1: metrics.batch_size: expected a whole number, found the text "100"; remove the quotes',
    ),
    ("metrics: {batch_size: 1000001}", "1: metrics.batch_size: must be at most 1000000"),
    ("metrics: {batch_size: [1]}", "1: metrics.batch_size: expected a whole number, found a list"),
    (
        "metrics: {batch_size: }",
        "1: metrics.batch_size: has no value; remove the line to get the default",
    ),
    (
        "metrics: {enabled: yes}",
        '1: metrics.enabled: expected true or false, found "yes"; write true',
    ),
    (
        "metrics: {enabled: True}",
        '1: metrics.enabled: expected true or false, found "True"; write true',
    ),
    (
        "metrics: {enabled: off}",
        '1: metrics.enabled: expected true or false, found "off"; write false',
    ),
    ("metrics: {enabled: maybe}", '1: metrics.enabled: expected true or false, found "maybe"'),
    ("metrics: 5", '1: metrics: expected a section of keys, found "5"'),
    (
        "api:\n  # ours\n  base_url:https://plane.example",
        '3: api: a space is missing after "base_url:"',
    ),
    ("api: 'a:b'", '1: api: expected a section of keys, found "a:b"'),
    ("metrics: []", "1: metrics: expected a section of keys, found a list"),
    ("ping: {timeout: {a: 1}}", "1: ping.timeout: expected a duration, found a section"),
    (
        "ping:\n  timeout: 2",
        '2: ping.timeout: expected a duration such as 15s or 1m30s, found "2"; write 2s',
    ),
    (
        "ping: {timeout: soon}",
        '1: ping.timeout: expected a duration such as 15s or 1m30s, found "soon"',
    ),
    ("ping: {timeout: 0s}", "1: ping.timeout: must be at least 10ms"),
    ("ping: {timeout: 2d}", "1: ping.timeout: must be at most 1h"),
    (
        "ping: {timeout: 15s}",
        "1: ping.timeout: must be shorter than metrics.collect_interval (15s)",
    ),
    ("spool: {max_bytes: 1B}", "1: spool.max_bytes: must be at least 1MiB"),
    (
        "spool: {max_bytes: 256M}",
        '1: spool.max_bytes: expected a size such as 256MiB or 1GiB, found "256M"; write 256MiB',
    ),
    (
        "log: {level: warn}",
        (
            '1: log.level: expected one of debug, info, warning, error, found "warn"; '
            "did you mean warning?"
        ),
    ),
    (
        "log: {level: DEBUG}",
        '1: log.level: expected one of debug, info, warning, error, found "DEBUG"; write debug',
    ),
    (
        "data_dir: ~/plexd",
        (
            '1: data_dir: expected an absolute path, found "~/plexd" '
            "(~ and variables are not expanded)"
        ),
    ),
    (
        'system: {mount_point: ""}',
        (
            '1: system.mount_point: expected an absolute path, found "" '
            "(~ and variables are not expanded)"
        ),
    ),
    (
        "wireguard: {interface: sixteencharacter}",
        (
            "1: wireguard.interface: expected the name of a network interface, "
            'found "sixteencharacter"'
        ),
    ),
    (
        "api: {base_url: plane.example}",
        (
            "1: api.base_url: expected an address such as https://plane.example, "
            'found "plane.example"; did you mean https://plane.example?'
        ),
    ),
    (
        "api: {base_url: 'https://a:hunter2@plane.example'}",
        "1: api.base_url: must not contain a user or password; use api.auth_token",
    ),
    (
        'api: {auth_token: "hunter 2"}',
        "1: api.auth_token: must be printable ASCII without spaces (the value is not shown)",
    ),
    (
        'data_dir: "/a\\nb"',
        "1: data_dir: must not contain line breaks or other control characters",
    ),
    ("- a", "1: expected lines of the form 'key: value' (with a space after the colon)"),
    ("data_dir:/x", "1: expected lines of the form 'key: value' (with a space after the colon)"),
    ("peers: a", "1: peers: expected a list of peers"),
    ("peers: [a]", "1: peers: expected a peer with id, public_key and mesh_ip"),
    ("peers:\n- {id: a}", "2: peers: this peer has no public_key"),
    ("peers:\n- {idd: a}", '2: peers: unknown key "idd"; did you mean id?'),
    (
        f"peers:\n- {{id: '', public_key: {KEY_B}, mesh_ip: '::1'}}",
        "2: peers.id: expected 1 to 256 printable characters",
    ),
    (
        f"peers:\n- {{id: a, public_key: {KEY_B}, mesh_ip: [1]}}",
        "2: peers.mesh_ip: expected text",
    ),
    (
        "peers:\n- {id: a, public_key: hunter2, mesh_ip: '::1'}",
        "2: peers.public_key: expected a WireGuard public key: 44 characters, as `wg` prints it",
    ),
    (
        f"peers:\n- {{id: a, public_key: {KEY_B}, mesh_ip: 10.0.0.1/32}}",
        (
            '2: peers.mesh_ip: expected an IP address, found "10.0.0.1/32"; '
            "leave out the prefix length"
        ),
    ),
    (
        f"peers:\n- {{id: a, public_key: {KEY_B}, mesh_ip: b}}",
        '2: peers.mesh_ip: expected an IP address, found "b"',
    ),
    (
        f"peers:\n- &p {{id: a, public_key: {KEY_B}, mesh_ip: '::1'}}\n- *p",
        "2: anchors and aliases (& and *) are not supported",
    ),
    (
        (
            f"peers:\n- {{id: a, public_key: {KEY_B}, mesh_ip: '::1'}}\n"
            f"- {{id: b, public_key: {KEY_B}, mesh_ip: '::2'}}"
        ),
        "3: peers.public_key: the peer on line 2 has the same one",
    ),
]


@pytest.mark.parametrize(("text", "complaint"), BAD_FILES)
def test_a_bad_file_is_one_sentence_with_line_and_key(
    config_file: Write, text: str, complaint: str
) -> None:
    path = config_file(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert str(caught.value) == f"{path}:{complaint}"


PIPELINE_COMPLAINTS = [
    ("collect_interval: 4s", 2, "collect_interval", "must be at least 5s"),
    ("report_interval: 9s", 2, "report_interval", "must be at least 10s"),
    ("collect_interval: 2m", 2, "report_interval", "must be >= metrics.collect_interval"),
    ("batch_size: 0", 2, "batch_size", "must be > 0"),
    ("batch_size: -1", 2, "batch_size", "must be > 0"),
    (
        "local_endpoint:\n    url: 'https://%zz'\n    secret_key: k",
        3,
        "local_endpoint.url",
        'invalid URL "https://%zz"',
    ),
    (
        "local_endpoint:\n    url: http://a\n    secret_key: k",
        3,
        "local_endpoint.url",
        'must be HTTPS, got "http"',
    ),
    (
        "local_endpoint:\n    url: https://a",
        3,
        "local_endpoint.secret_key",
        "is required when metrics.local_endpoint.url is set",
    ),
]


@pytest.mark.parametrize(("text", "line", "key", "complaint"), PIPELINE_COMPLAINTS)
def test_the_pipelines_complaints_get_the_file_and_the_line_of_their_key(
    config_file: Write, text: str, line: int, key: str, complaint: str
) -> None:
    path = config_file(f"metrics:\n  {text}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert str(caught.value) == f"{path}:{line}: metrics.{key}: {complaint}"


def test_an_address_that_quotes_a_field_is_quoted_unchanged(config_file: Write) -> None:
    path = config_file("metrics: {local_endpoint: {url: 'https://a/URL %zz BatchSize'}}")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert caught.value.reason == 'invalid URL "https://a/URL %zz BatchSize"'


def test_a_disabled_pipeline_is_not_validated(config_file: Write) -> None:
    text = "metrics: {enabled: false, batch_size: 0, local_endpoint: {url: 'http://a:b@c'}}"
    assert load_settings(config_file(text), {}).metrics.batch_size == 0


def test_a_password_in_the_local_endpoint_is_refused_unseen(config_file: Write) -> None:
    path = config_file("metrics: {local_endpoint: {url: 'https://a:hunter2@b c'}}")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    key = "metrics.local_endpoint.url"
    assert (
        str(caught.value) == f"{path}:1: {key}: must not contain a user or password; use secret_key"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "ftp://a",
        "http://a b",
        "http://[::1",
        "http://a:x",
        "http://a:0",
        "//a",
        "https://a?b",
        "https://a#b",
        "https:///x",
        "http://a\\b",
        "http:// a",
        "http://a..b",
        "http://.a",
        "http://*",
        "http://a%41",
        "http://<a>",
        f"http://{'a' * 64}.example",
        f"http://{'a.' * 128}",
    ],
)
def test_an_address_without_scheme_or_host_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^PLEXD_API_BASE_URL: expected an address such as"):
        load_settings(None, {"PLEXD_API_BASE_URL": url})


ZONES = {
    "http://[fe80::1]:80": "a link-local address needs its interface: [fe80::1%25eth0]",
    "http://[fe80::1%25]": "a zone has to be the name of an interface, as in [fe80::1%25eth0]",
    "https://[fd00::1%25eth0]": "only a link-local address (fe80::) has a zone; leave it out",
    "http://[v1.a]:80": "only an IPv6 address is in brackets, as in [fd00::1]",
    "http://[v1.a:b]": "only an IPv6 address is in brackets, as in [fd00::1]",
    "https://[::1%25lo]/": "only a link-local address (fe80::) has a zone; leave it out",
}


@pytest.mark.parametrize("url", ZONES)
def test_a_zone_is_where_one_is_needed_and_nowhere_else(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {"PLEXD_API_BASE_URL": url})
    assert str(refused.value) == f"PLEXD_API_BASE_URL: {ZONES[url]}"


@pytest.mark.parametrize("url", ZONES)
def test_a_zone_in_a_proxys_address_follows_the_same_rule(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {"PLEXD_API_PROXY": url.replace("https:", "http:")})
    assert str(refused.value) == f"PLEXD_API_PROXY: {ZONES[url]}"


def test_a_line_break_behind_a_proxys_password_is_no_fault() -> None:
    given = {"PLEXD_API_PROXY": "http://user:canary@proxy.example:3128\r\n"}
    assert load_settings(None, given).api.proxy == "http://user:canary@proxy.example:3128"


@pytest.mark.parametrize("name", [".", "..", "ü" * 8])
@pytest.mark.parametrize("key", ["WIREGUARD_INTERFACE", "SYSTEM_NET_IFACE"])
def test_a_name_that_the_kernel_gives_to_no_interface_is_refused(key: str, name: str) -> None:
    name *= 8 if key == "SYSTEM_NET_IFACE" and name.isalpha() else 1
    with pytest.raises(SettingsError, match="expected the name of a network interface, found"):
        load_settings(None, {f"PLEXD_{key}": name})


def test_a_mistake_of_any_length_is_one_short_sentence() -> None:
    for url in ("1" * 5000, f"plane.example/{'x' * 5000}", f"[{'1' * 5000}]"):
        with pytest.raises(SettingsError) as refused:
            load_settings(None, {"PLEXD_API_BASE_URL": url})
        assert len(str(refused.value)) < 500


def test_a_local_endpoint_without_the_zone_it_needs_is_refused() -> None:
    endpoint = {"URL": "https://[fe80::1]/ingest", "SECRET_KEY": "k"}
    environ = {f"PLEXD_METRICS_LOCAL_ENDPOINT_{key}": value for key, value in endpoint.items()}
    with pytest.raises(SettingsError, match="a link-local address needs its interface"):
        load_settings(None, environ)


@pytest.mark.parametrize("zone", ["%25eth0", "%eth0", "%25eth0.1", "%2"])
def test_a_link_local_address_may_be_written_as_in_urls_or_plain(zone: str) -> None:
    environ = {"PLEXD_API_BASE_URL": f"http://[fe80::1{zone}]:8081/mesh"}
    settings = load_settings(None, environ)
    plain = zone.replace("%25", "%")
    assert settings.api.base_url == f"http://[fe80::1{plain}]:8081/mesh"


@pytest.mark.parametrize("url", ["http://a", "https://a:8443/prefix/", "http://[::1]:80", ""])
def test_an_address_with_scheme_and_host_is_accepted(url: str) -> None:
    assert load_settings(None, {"PLEXD_API_BASE_URL": url}).api.base_url == url


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"data_dir: /\xff\n", ":1: is not UTF-8 text"),
        ("\ufeffapi:".encode("utf-16"), ":1: is not UTF-8 text"),
        (b"a: 1\nb: \x00", ":2: the character U+0000 is not allowed"),
        (b"#" * (2**20 + 1), ": larger than 1MiB, which no configuration is"),
    ],
)
def test_a_file_that_is_no_text_is_one_sentence(
    config_file: Write, content: bytes, complaint: str
) -> None:
    path = config_file(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert str(caught.value) == f"{path}{complaint}"


def test_a_byte_order_mark_is_passed_over(config_file: Write) -> None:
    assert load_settings(config_file(b"\xef\xbb\xbfdata_dir: /x"), {}).data_dir == Path("/x")


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, complaint in [
        (tmp_path, "is a directory; name the file in it"),
        (tmp_path / "none", "no such file; name another one with --config"),
        (loop, "cannot be read: Too many levels of symbolic links"),
    ]:
        with pytest.raises(SettingsError) as caught:
            load_settings(path, {})
        assert str(caught.value) == f"{path}: {complaint}"


def test_a_path_no_file_can_have_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"^a\\x00b: cannot be read: the name contains a NUL"):
        load_settings(Path("a\0b"), {})


def test_permission_denied_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(SettingsError) as caught:
        load_settings(Path("/x"), {})
    complaint = "permission denied; run as its owner or as a member of its group"
    assert str(caught.value) == f"/x: {complaint}"


def _complaint(path: Path) -> str:
    """What is wrong with the file; nothing if it loads."""
    try:
        load_settings(path, {})
    except SettingsError as err:
        return str(err)
    return ""


@pytest.mark.slow
def test_a_file_cut_anywhere_loads_or_is_one_sentence(config_file: Write, full_sample: str) -> None:
    whole = full_sample.encode()
    for end in range(len(whole)):
        path = config_file(whole[:end])
        assert re.fullmatch(rf"({path}(:\d+)?: .+)?", _complaint(path)), end


_LINES = st.sampled_from(
    [
        *(f"{'  ' * key.count('.')}{key.rpartition('.')[2]}: " for key in KEYS),
        "peers:\n",
        "api:\n",
        "metrics:\n",
        "  local_endpoint:\n",
        "- {id: a, ",
        "\t",
        "[",
        "&a ",
        "15s\n",
        "true\n",
        "'",
    ]
)


@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200), st.lists(_LINES | st.text(max_size=9))
    )
)
def test_arbitrary_bytes_load_or_are_one_sentence(content: bytes | str | list[str]) -> None:
    text = "".join(content) if isinstance(content, list) else content
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "c.yaml"
        path.write_bytes(data)
        assert _complaint(path).isprintable()


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if key.kind is not SECRET], ids=lambda key: key.path
)
def test_a_default_is_read_back_as_it_is_shown(key: object) -> None:
    from plexd.agent.config.keys import Key  # noqa: PLC0415 - narrows the parameter

    assert isinstance(key, Key)
    value = key.kind.parse(key.default)
    written = key.kind.yaml(value)
    assert key.kind.parse(written.strip('"')) == value
