"""Requests generated from the server's own document, and answers compared with it."""

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

MACHINES = 10_000  # that may register
# Parameters that a generator does not find in so few requests.
PARAMETERS = {"GET /v1/nodes/{node_id}/series": {"field": "cpu_usage_percent"}}
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]


class _FreshAddress(HTTPAdapter):
    """Sends from an address of loopback that no request came from before."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        a, b, c = secrets.token_bytes(3)
        address = f"127.{a}.{b}.{max(1, c)}"
        super().init_poolmanager(*args, source_address=(address, 0), **kwargs)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


class Target:
    """A server with one node, and the tokens of every kind of caller.

    ``join`` is the token with which machines register.
    """

    def __init__(self, url: str, tokens: dict[str, str], join: str) -> None:
        self.url = url
        self._join = join
        self.session = requests.Session()
        self.session.trust_env = False  # looking for a .netrc takes longer than an answer
        self.tokens = tokens
        for token in tokens.values():  # a token that was right once is not slowed like a guess
            self.session.get(f"{url}/v1/nodes/n1/latest", headers=bearer(token), timeout=10)
        # Its import takes over a second, which only the worker that explores has to pay.
        from schemathesis import checks, openapi  # noqa: PLC0415 -- as above

        self._openapi = openapi
        checks.load_all_checks()
        self._checks = checks.CHECKS.get_by_names(CHECKS)

    def explore(self, route: str, examples: int, *, seed: int | None = None) -> Counter[int]:
        """Send generated requests as every kind of caller, and count the statuses of the answers.

        Raises for an answer that the document does not describe. Without a seed the requests are
        the same each time.
        """
        method, path = route.split(" ")
        send = self._register if path == "/v1/register" else self._ask
        operation = self._openapi.from_dict(document())[path][method]
        seen = Counter[int]()

        def send_all(case: Any) -> None:
            # Generated tokens and cookies are guesses, which other tests cover.
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
        )(hypothesis.given(operation.as_strategy())(send_all))
        (trial if seed is None else hypothesis.seed(seed)(trial))()
        if route in PARAMETERS:
            known = operation.Case(path_parameters={"node_id": "n1"}, query=PARAMETERS[route])
            send_all(known)
        return seen

    def _ask(self, case: Any) -> Iterator[Any]:
        """Send it with every token, for the generated node and for the one that exists."""
        for token in ("", *self.tokens.values()):
            if case.path == "/login" and token:
                case.query["token"] = token
            for node_id in {case.path_parameters.get("node_id", ""), "n1"}:
                if "node_id" in case.path_parameters:
                    case.path_parameters["node_id"] = node_id
                yield self._call(case, bearer(token))

    def _register(self, case: Any) -> Iterator[Any]:
        """Send it as generated, then with a valid token.

        Both come from a new address, as attempts from one are limited.
        """
        with closing(_FreshAddress()) as adapter:
            self.session.mount(self.url, adapter)
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
    """Run a server of its own that limits no node's requests."""
    node = create_node(data_dir, "n1")["auth_token"]
    ingest = command("ingest-token", "create", "n1", "--data-dir", data_dir).stdout.strip()
    join = command("token", "create", "--uses", MACHINES, "--data-dir", data_dir).stdout.strip()
    with served(data_dir, node_rate=0.0) as server:
        operator = server.operator_token
        tokens = {"node": node, "ingest": ingest, "operator": operator}
        made = Target(server.url, tokens, join)
        yield made
        made.session.close()
