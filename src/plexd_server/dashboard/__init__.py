"""The pages people look at: two shells of HTML, filled by plain ES modules from the JSON routes."""

from plexd_server.dashboard.routes import dashboard_routes

__all__ = ["dashboard_routes"]
