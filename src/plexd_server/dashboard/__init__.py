"""The pages people look at: shells of HTML, filled by plain ES modules from the JSON routes."""

from plexd_server.dashboard.refusals import RefusalPages
from plexd_server.dashboard.routes import dashboard_routes

__all__ = ["RefusalPages", "dashboard_routes"]
