"""What every request passes: server, protocol, TLS, Host check, limits, bodies, refusals."""

from plexd_server.web.error_pages import ErrorPages
from plexd_server.web.guard import Guard
from plexd_server.web.limits import InFlight
from plexd_server.web.problems import problem_handlers
from plexd_server.web.server import Address, bind, serving
from plexd_server.web.tls import Certificate, served_certificate
from plexd_server.web.uvicorn_hooks import check_uvicorn

__all__ = [
    "Address",
    "Certificate",
    "ErrorPages",
    "Guard",
    "InFlight",
    "bind",
    "check_uvicorn",
    "problem_handlers",
    "served_certificate",
    "serving",
]
