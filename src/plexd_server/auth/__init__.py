"""Who asks, and may they: nodes and the operator by their tokens, and bounds on guessing."""

from plexd_server.auth.gate import Gate
from plexd_server.auth.operator_token import OperatorKey, new_operator_token, read_operator_token
from plexd_server.auth.proxies import BehindProxies, is_proxy
from plexd_server.auth.throttle import WrongTokens, address_of

__all__ = [
    "BehindProxies",
    "Gate",
    "OperatorKey",
    "WrongTokens",
    "address_of",
    "is_proxy",
    "new_operator_token",
    "read_operator_token",
]
