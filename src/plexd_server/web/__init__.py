"""What every request passes: listeners, server, protocol, TLS, Host check, limits, refusals."""

from plexd_server.web.accepting import allowance, log_allowance
from plexd_server.web.base_path import BasePath
from plexd_server.web.error_pages import ErrorPages
from plexd_server.web.guard import Guard
from plexd_server.web.head_requests import HeadAsGet
from plexd_server.web.limits import InFlight
from plexd_server.web.listeners import (
    Address,
    UnixPath,
    address_of_listener,
    address_to_reach,
    bind,
    listening_on,
)
from plexd_server.web.problems import problem_handlers
from plexd_server.web.server import serving
from plexd_server.web.tls import Certificate, served_certificate
from plexd_server.web.unread import UnreadAnswers
from plexd_server.web.uvicorn_hooks import check_uvicorn

__all__ = [
    "Address",
    "BasePath",
    "Certificate",
    "ErrorPages",
    "Guard",
    "HeadAsGet",
    "InFlight",
    "UnixPath",
    "UnreadAnswers",
    "address_of_listener",
    "address_to_reach",
    "allowance",
    "bind",
    "check_uvicorn",
    "listening_on",
    "log_allowance",
    "problem_handlers",
    "served_certificate",
    "serving",
]
