from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, NoReturn

import pytest

from plexd.agent.config.checks import check_for_run, warnings_about, warnings_about_machine
from plexd.agent.config.settings import load_settings
from plexd.agent.config.show import show_settings
from plexd.agent.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[str], Path]

PLANE = {"PLEXD_API_BASE_URL": "https://plane.example"}


def _warnings(environ: dict[str, str], path: Path | None = None) -> list[str]:
    return list(warnings_about(load_settings(path, environ), environ))


def test_sound_settings_raise_no_warning() -> None:
    assert _warnings(PLANE) == []


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://plane.example", True),
        ("http://10.0.0.1:8080", True),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]", False),
        ("http://localhost", False),
        ("https://plane.example", False),
    ],
)
def test_a_token_in_the_clear_is_warned_of_beyond_this_machine(url: str, *, warned: bool) -> None:
    sentence = "api.base_url: http:// sends the node's bearer token unencrypted; use https://"
    assert (sentence in _warnings({"PLEXD_API_BASE_URL": url})) is warned


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, False), (0o600, False)])
def test_a_token_in_a_file_everybody_can_read_is_warned_of(
    config_file: Write, mode: int, *, warned: bool
) -> None:
    path = config_file("api: {auth_token: abc}")
    path.chmod(mode)
    sentence = f"{path}: everybody can read api.auth_token in it; run: chmod 0640 {path}"
    assert (sentence in _warnings(PLANE, path)) is warned


def test_on_a_read_only_mount_nobody_is_told_to_change_a_mode(
    config_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config_file("api: {auth_token: abc}")
    path.chmod(0o644)
    read_only = os.statvfs_result((1, 1, 1, 1, 1, 1, 1, 1, os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    (warning,) = _warnings(PLANE, path)
    assert "chmod" not in warning
    assert "mount is read-only" in warning


def test_a_token_from_the_environment_does_not_make_the_file_secret(config_file: Write) -> None:
    path = config_file("data_dir: /x")
    path.chmod(0o644)
    assert _warnings({**PLANE, "PLEXD_API_AUTH_TOKEN": "abc"}, path) == []
    assert _warnings({**PLANE, "PLEXD_API_AUTH_TOKEN": "abc"}) == []


def test_a_file_removed_meanwhile_raises_no_warning(config_file: Write) -> None:
    path = config_file("api: {auth_token: abc}")
    settings = load_settings(path, PLANE)
    path.unlink()
    assert list(warnings_about(settings, PLANE)) == []


def test_what_weakens_tls_or_cannot_work_is_warned_of(tmp_path: Path) -> None:
    environ = {
        "PLEXD_API_TLS_INSECURE_SKIP_VERIFY": "true",
        "PLEXD_METRICS_LOCAL_ENDPOINT_TLS_INSECURE_SKIP_VERIFY": "true",
        "PLEXD_API_CA_FILE": str(tmp_path / "none.pem"),
    }
    assert _warnings(environ) == [
        "api.tls_insecure_skip_verify: whoever answers is trusted; use for tests",
        (
            "metrics.local_endpoint.tls_insecure_skip_verify: whoever answers is trusted; "
            "use for tests"
        ),
        f"api.ca_file: {tmp_path}/none.pem cannot be read",
        "api.base_url: is not set; `plexd run` needs it",
    ]


@pytest.mark.parametrize("content", ["", "half of a", None])
def test_authorities_that_cannot_be_used_are_warned_of(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    path.mkdir() if content is None else path.write_text(content)
    (warning,) = _warnings(PLANE | {"PLEXD_API_CA_FILE": str(path)})
    assert warning.startswith(f"api.ca_file: cannot use the CA file {path}: ")


def test_a_token_file_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("abc")
    environ = PLANE | {"PLEXD_API_AUTH_TOKEN_FILE": str(path)}
    for mode, warned in ((0o644, True), (0o444, True), (0o600, False), (0o440, False)):
        path.chmod(mode)
        sentence = f"api.auth_token_file: others can read {path}; run: chmod 0600 {path}"
        assert _warnings(environ) == [sentence] * warned
    path.unlink()
    assert _warnings(environ) == []


def test_a_token_and_a_file_for_one_are_too_much(config_file: Write) -> None:
    path = config_file("api: {auth_token: hunter2, auth_token_file: /run/token}")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {"PLEXD_METRICS_ENABLED": "false"})
    said = "is set beside api.auth_token; one of the two has to be empty"
    assert str(caught.value) == f"{path}:1: api.auth_token_file: {said}"
    assert load_settings(path, {"PLEXD_API_AUTH_TOKEN": ""}).auth_token_file is not None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_is_said_not_to_be_used(name: str) -> None:
    environ = PLANE | {name: "http://user:canary@proxy.example:3128"}
    behind = "if the control plane is behind a proxy, set api.proxy (PLEXD_API_PROXY)"
    assert _warnings(environ) == [f"{name}: not used; {behind}"]
    assert _warnings(environ | {"PLEXD_API_PROXY": "http://proxy.example:3128"}) == []
    assert _warnings(PLANE | {name: ""}) == []


def test_a_proxy_for_http_concerns_a_control_plane_without_tls_only() -> None:
    proxy = {"HTTP_PROXY": "http://proxy.example:3128"}
    assert _warnings(PLANE | proxy) == []
    (warning,) = _warnings({"PLEXD_API_BASE_URL": "http://127.0.0.1"} | proxy)
    assert warning.startswith("HTTP_PROXY: not used; ")


@pytest.mark.parametrize(
    ("exceptions", "warned"),
    [
        ("plane.example", False), ("localhost, .example", False), ("*.example", False),
        ("*", False), ("EXAMPLE", False), ("lane.example", True), ("plane.example.org", True),
        (",", True), ("localhost, *", False), (".org .example", False), ("[::1]", True),
        ("plane.example:443", False), ("plane.example:80", True), ("*:", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_a_control_plane_that_no_proxy_is_for_needs_none(
    name: str, exceptions: str, *, warned: bool
) -> None:
    environ = PLANE | {"HTTPS_PROXY": "http://proxy.example:3128", name: exceptions}
    assert bool(_warnings(environ)) is warned


@pytest.mark.parametrize(
    ("exceptions", "warned"),
    [
        ("10.0.0.0/8", False), ("10.1.2.3", False), ("10.1.2.3:8443", False), ("10.1.2.4", True),
        ("10.1.0.0/24", True), ("fd00::/8", True),
    ],
)  # fmt: skip
def test_an_address_that_no_proxy_is_for_needs_none(exceptions: str, *, warned: bool) -> None:
    plane = {"PLEXD_API_BASE_URL": "https://10.1.2.3:8443"}
    environ = plane | {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": exceptions}
    assert bool(_warnings(environ)) is warned


def test_a_proxys_password_shows_nowhere(config_file: Write) -> None:
    path = config_file("api: {proxy: 'http://user:canary@proxy.example:3128'}")
    settings = load_settings(path, PLANE)
    shown = repr(settings) + show_settings(settings) + str(_warnings(PLANE, path))
    assert "canary" not in shown
    assert "proxy.example" not in shown
    assert "http://proxy.example:3128" in show_settings(
        load_settings(None, {"PLEXD_API_PROXY": "http://proxy.example:3128"})
    )


def test_running_needs_a_control_plane(config_file: Write) -> None:
    complaint = (
        "api.base_url: is not set; write the control plane's address into the configuration "
        "file or set PLEXD_API_BASE_URL"
    )
    for path, place in [(None, ""), (config_file(""), f"{config_file('')}: ")]:
        with pytest.raises(SettingsError) as caught:
            check_for_run(load_settings(path, {}))
        assert str(caught.value) == f"{place}{complaint}"


def test_running_needs_a_place_for_the_identity() -> None:
    with pytest.raises(SettingsError) as caught:
        check_for_run(load_settings(None, {**PLANE, "PLEXD_DATA_DIR": ""}))
    complaint = "data_dir: is empty, so say where the node's identity is: plexd run --identity FILE"
    assert str(caught.value) == f"PLEXD_DATA_DIR: {complaint}"


def test_sound_settings_are_enough_to_run() -> None:
    check_for_run(load_settings(None, PLANE))


def _missing(**environ: str) -> list[str]:
    return list(warnings_about_machine(load_settings(None, environ)))


def test_parts_of_the_machine_that_are_not_named_are_not_looked_for() -> None:
    assert _missing() == []
    assert _missing(PLEXD_WIREGUARD_INTERFACE="", PLEXD_SYSTEM_NET_IFACE="") == []


def test_a_named_part_that_is_there_raises_no_warning(tmp_path: Path) -> None:
    assert _missing(PLEXD_SYSTEM_MOUNT_POINT=str(tmp_path), PLEXD_SYSTEM_NET_IFACE="lo") == []


def test_a_named_part_that_is_missing_raises_a_warning(tmp_path: Path) -> None:
    assert _missing(
        PLEXD_SYSTEM_MOUNT_POINT=str(tmp_path / "none"),
        PLEXD_SYSTEM_NET_IFACE="plexd-none",
        PLEXD_WIREGUARD_INTERFACE="wg-none",
    ) == [
        f"system.mount_point: {tmp_path}/none: No such file or directory",
        'system.net_iface: there is no interface "plexd-none"',
        'wireguard.interface: there is no interface "wg-none"',
    ]


def test_an_interface_by_nearly_its_name_gets_the_nearest() -> None:
    assert _missing(PLEXD_SYSTEM_NET_IFACE="lo0")[0].endswith("; did you mean lo?")


def test_where_interfaces_cannot_be_listed_none_is_called_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused() -> NoReturn:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "if_nameindex", refused)
    assert _missing(PLEXD_SYSTEM_NET_IFACE="plexd-none") == []
