"""The OpenAPI document: it describes every route, and every answer is as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from plexd.clock import SystemClock
from plexd_server.app import build_app
from plexd_server.auth import OperatorKey
from plexd_server.mesh import LiveMesh
from plexd_server.registry import Registry
from server.routes.conformance import ROUTES, Target, bearer, serving_target
from server.routes.documented import document
from support.points import EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = 8


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with serving_target(tmp_path_factory.mktemp("openapi") / "data") as made:
        yield made


def test_the_document_describes_every_route_and_no_other(tmp_path: Path) -> None:
    registry = Registry(tmp_path, clock=SystemClock())
    store: Any = None  # nothing is asked
    app = build_app(
        store, LiveMesh(), registry, OperatorKey.of("x" * 32), port=1, clock=SystemClock()
    )
    registry.close()

    served = {
        f"{method} {route.path_format}"
        for route in app.router.routes
        for method in getattr(route, "methods", ())
        if method not in {"OPTIONS", "HEAD"}
    }
    assert served == set(ROUTES)


@pytest.mark.slow
def test_anybody_may_read_the_document(target: Target) -> None:
    answer = target.session.get(f"{target.url}/v1/openapi.json", timeout=10)

    assert (answer.status_code, answer.json()) == (200, document())


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_every_answer_is_as_the_document_says(target: Target, route: str) -> None:
    seen = target.explore(route, EXAMPLES)

    assert seen.keys() & {200, 303, 404, 422, 429}, seen


def test_a_report_that_the_document_allows_is_accepted(target: Target) -> None:
    answer = target.session.post(
        f"{target.url}/v1/nodes/n1/metrics",
        data=EXAMPLE.to_json(),
        headers={**bearer(target.tokens["node"]), "Content-Type": "application/json"},
        timeout=10,
    )

    assert answer.status_code == 200


def test_every_json_answer_lists_its_members_and_every_reference_has_a_schema() -> None:
    schemas = document()["components"]["schemas"]
    contents = [
        response.get("content", {})
        for operations in document()["paths"].values()
        for operation in operations.values()
        for response in operation["responses"].values()
    ]
    answers = [each["schema"]["$ref"] for content in contents for each in json_of(content)]

    assert len(answers) > len(ROUTES)
    assert all(schemas[name.rsplit("/", 1)[1]]["properties"] for name in answers)
    assert {name.rsplit("/", 1)[1] for name in references(document())} == schemas.keys()


def json_of(content: dict[str, Any]) -> list[Any]:
    return [each for media_type, each in content.items() if media_type.endswith("json")]


def references(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(references, part))
    if not isinstance(part, dict):
        return set()
    own = {part["$ref"]} if "$ref" in part else set()
    return own.union(*map(references, part.values()))


def test_a_report_declares_the_headers_of_its_batch() -> None:
    parameters = document()["paths"]["/v1/nodes/{node_id}/metrics"]["post"]["parameters"]

    assert {each["name"] for each in parameters if each["in"] == "header"} == {
        "Plexd-After",
        "Plexd-Batch",
        "Plexd-Dropped",
    }
