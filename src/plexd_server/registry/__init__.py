"""Who may report: nodes, their tokens, keys and secrets."""

from plexd_server.registry.enrolment import Applicant
from plexd_server.registry.ids import hash_token, is_node_id, is_public_key
from plexd_server.registry.node_secrets import StoredSecret
from plexd_server.registry.nodes import Node, parse_address
from plexd_server.registry.registry import Registry, has_registry
from plexd_server.registry.tokens import INGEST, NODE, BootstrapToken, Holder

__all__ = [
    "INGEST",
    "NODE",
    "Applicant",
    "BootstrapToken",
    "Holder",
    "Node",
    "Registry",
    "StoredSecret",
    "has_registry",
    "hash_token",
    "is_node_id",
    "is_public_key",
    "parse_address",
]
