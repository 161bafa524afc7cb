"""The pages people look at: shells of HTML, filled by plain ES modules from the JSON routes."""

from plexd_server.routes.pages import dashboard_routes
from plexd_server.web.error_pages import ErrorPages

__all__ = ["ErrorPages", "dashboard_routes"]
