"""Who asks, and may they: nodes and the operator by their tokens, and bounds on guessing."""

from plexd_server.auth.gate import Gate
from plexd_server.auth.sessions import OperatorKey, new_operator_token, read_operator_token
from plexd_server.auth.throttle import WrongTokens, address_of, retry_after

__all__ = [
    "Gate",
    "OperatorKey",
    "WrongTokens",
    "address_of",
    "new_operator_token",
    "read_operator_token",
    "retry_after",
]
