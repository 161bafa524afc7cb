"""The document of the routes, held against the routes and against whatever can be sent to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from schemathesis import checks

from plexd.clock import SystemClock
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.mesh import Board
from plexd_server.openapi import _ROUTES, document
from plexd_server.registry import Registry
from server.running import command, create_node, running
from support.points import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUTES = sorted(_ROUTES)
EXAMPLES = 8
# What a generator does not guess in so few tries.
PARAMETERS = {"GET /v1/nodes/{node_id}/series": {"field": "cpu_usage_percent"}}


class Target:
    """A server with one node, and the tokens of everybody who may ask it something."""

    def __init__(self, url: str, tokens: dict[str, str]) -> None:
        self.url = url
        self.session = requests.Session()
        self.tokens = tokens
        for token in tokens.values():  # known to be right, they pass where others guess
            self.session.get(f"{url}/v1/nodes/n1/latest", headers=bearer(token), timeout=10)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    data_dir = tmp_path_factory.mktemp("openapi") / "data"
    node = create_node(data_dir, "n1")["auth_token"]
    ingest = command("ingest-token", "create", "n1", "--data-dir", data_dir).stdout.strip()
    with running(data_dir, "--node-rate", "0") as server:
        operator = server.operator_token
        made = Target(server.url, {"node": node, "ingest": ingest, "operator": operator})
        yield made
        made.session.close()


def test_the_document_tells_of_every_route_and_of_no_other(tmp_path: Path) -> None:
    registry = Registry(tmp_path, clock=SystemClock())
    store: Any = None  # nothing is asked
    app = build_app(store, Board(), registry, OperatorKey.of("x" * 32), port=1, clock=SystemClock())
    registry.close()

    served = {
        f"{method} {route.path_format}"
        for route in app.routes
        for method in getattr(route, "methods", ())
        if method not in {"OPTIONS", "HEAD"}
    }
    assert served == set(ROUTES)


def test_anybody_may_read_the_document(target: Target) -> None:
    answer = target.session.get(f"{target.url}/v1/openapi.json", timeout=10)

    assert (answer.status_code, answer.json()) == (200, document())


@pytest.mark.parametrize("route", ROUTES)
def test_whatever_is_sent_is_answered_as_the_document_says(target: Target, route: str) -> None:
    method, path = route.split(" ")
    operation = schemathesis.openapi.from_dict(document())[path][method]
    checks.load_all_checks()
    wanted = checks.CHECKS.get_by_names(
        [
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        ]
    )
    seen = set[int]()

    def try_out(case: Any) -> None:
        # Made-up tokens and cookies are guesses, and guessing is another test's business.
        case.cookies.clear()
        case.headers.pop("Authorization", None)
        for token in ("", *target.tokens.values()):
            if path == "/login" and token:
                case.query["token"] = token
            for node_id in {case.path_parameters.get("node_id", ""), "n1"}:
                if "node_id" in case.path_parameters:
                    case.path_parameters["node_id"] = node_id
                answer = case.call(
                    base_url=target.url, session=target.session, headers=bearer(token),
                    allow_redirects=False,
                )  # fmt: skip
                seen.add(answer.status_code)
                target.session.cookies.clear()
                case.validate_response(answer, checks=wanted)

    hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(hypothesis.given(operation.as_strategy())(try_out))()
    if route in PARAMETERS:
        known = operation.Case(path_parameters={"node_id": "n1"}, query=PARAMETERS[route])
        try_out(known)
    assert seen & {200, 303, 404, 422, 429}, seen


def test_a_report_the_document_allows_is_taken(target: Target) -> None:
    answer = target.session.post(
        f"{target.url}/v1/nodes/n1/metrics",
        data=EXAMPLE.to_json(),
        headers={**bearer(target.tokens["node"]), "Content-Type": "application/json"},
        timeout=10,
    )

    assert answer.status_code == 200
