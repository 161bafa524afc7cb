"""Whatever can be sent to the server, made up from its own document and held against it."""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import hypothesis
import requests
from hypothesis import HealthCheck
from requests.adapters import HTTPAdapter

from server.routes.documented import ROUTES, document
from server.running import command, create_node, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ROUTES", "Target", "bearer", "serving_target"]

MACHINES = 10_000  # that may be let in
# What a generator does not guess in so few tries.
PARAMETERS = {"GET /v1/nodes/{node_id}/series": {"field": "cpu_usage_percent"}}
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


class _Caller(HTTPAdapter):
    """Calls from an address of loopback that nobody called from before."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        a, b, c = secrets.token_bytes(3)
        address = f"127.{a}.{b}.{max(1, c)}"
        super().init_poolmanager(*args, source_address=(address, 0), **kwargs)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


class Target:
    """A server with one node, and the tokens of everybody who may ask it something.

    ``join`` lets machines in.
    """

    def __init__(self, url: str, tokens: dict[str, str], join: str) -> None:
        self.url = url
        self._join = join
        self.session = requests.Session()
        self.session.trust_env = False  # looking for a .netrc takes longer than an answer
        self.tokens = tokens
        for token in tokens.values():  # known to be right, they pass where others guess
            self.session.get(f"{url}/v1/nodes/n1/latest", headers=bearer(token), timeout=10)
        # Its import takes over a second, which only the worker that explores has to pay.
        from schemathesis import checks, openapi  # noqa: PLC0415 -- as above

        self._openapi = openapi
        checks.load_all_checks()
        self._checks = checks.CHECKS.get_by_names(CHECKS)

    def explore(self, route: str, examples: int, *, seed: int | None = None) -> Counter[int]:
        """Send what a generator makes up, as everybody; how often which status came.

        Raises for an answer that the document does not describe. Without a seed the examples are
        the same each time.
        """
        method, path = route.split(" ")
        send = self._apply if path == "/v1/register" else self._ask
        operation = self._openapi.from_dict(document())[path][method]
        seen = Counter[int]()

        def try_out(case: Any) -> None:
            # Made-up tokens and cookies are guesses, and guessing is another test's business.
            case.cookies.clear()
            case.headers.pop("Authorization", None)
            for answer in send(case):
                seen[answer.status_code] += 1
                self.session.cookies.clear()
                case.validate_response(answer, checks=self._checks)

        trial = hypothesis.settings(
            max_examples=examples,
            derandomize=seed is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(hypothesis.given(operation.as_strategy())(try_out))
        (trial if seed is None else hypothesis.seed(seed)(trial))()
        if route in PARAMETERS:
            known = operation.Case(path_parameters={"node_id": "n1"}, query=PARAMETERS[route])
            try_out(known)
        return seen

    def _ask(self, case: Any) -> Iterator[Any]:
        """As everybody, of the node there is as well."""
        for token in ("", *self.tokens.values()):
            if case.path == "/login" and token:
                case.query["token"] = token
            for node_id in {case.path_parameters.get("node_id", ""), "n1"}:
                if "node_id" in case.path_parameters:
                    case.path_parameters["node_id"] = node_id
                yield self._call(case, bearer(token))

    def _apply(self, case: Any) -> Iterator[Any]:
        """As made up, then as a machine that has a token; from a new address, as few may come."""
        with closing(_Caller()) as caller:
            self.session.mount(self.url, caller)
            yield self._call(case, {})
            if isinstance(case.body, dict):
                key = base64.b64encode(secrets.token_bytes(32)).decode()
                case.body |= {"token": self._join, "public_key": key}
                yield self._call(case, {})

    def _call(self, case: Any, headers: dict[str, str]) -> Any:
        return case.call(
            base_url=self.url, session=self.session, headers=headers, allow_redirects=False
        )


@contextmanager
def serving_target(data_dir: Path) -> Iterator[Target]:
    """A server of its own, which lets everybody hurry."""
    node = create_node(data_dir, "n1")["auth_token"]
    ingest = command("ingest-token", "create", "n1", "--data-dir", data_dir).stdout.strip()
    join = command("token", "create", "--uses", MACHINES, "--data-dir", data_dir).stdout.strip()
    with served(data_dir, node_rate=0.0) as server:
        operator = server.operator_token
        tokens = {"node": node, "ingest": ingest, "operator": operator}
        made = Target(server.url, tokens, join)
        yield made
        made.session.close()
