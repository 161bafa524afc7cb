"""Who may report: nodes, their tokens, keys and secrets."""

from plexd_server.registry.enrolment import Applicant
from plexd_server.registry.ids import hash_token, is_node_id, is_public_key
from plexd_server.registry.mesh_addresses import parse_address, refuse_unfit, refuse_unfit_network
from plexd_server.registry.node_secrets import StoredSecret
from plexd_server.registry.nodes import Node
from plexd_server.registry.registry import Registry, has_registry
from plexd_server.registry.sessions import SESSION_LASTS, Session
from plexd_server.registry.tokens import INGEST, NODE, BootstrapToken, Holder

__all__ = [
    "INGEST",
    "NODE",
    "SESSION_LASTS",
    "Applicant",
    "BootstrapToken",
    "Holder",
    "Node",
    "Registry",
    "Session",
    "StoredSecret",
    "has_registry",
    "hash_token",
    "is_node_id",
    "is_public_key",
    "parse_address",
    "refuse_unfit",
    "refuse_unfit_network",
]
