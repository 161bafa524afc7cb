"""The pages people look at: shells of HTML, filled by plain ES modules from the JSON routes."""

from plexd_server.dashboard.routes import dashboard_routes, page_handlers

__all__ = ["dashboard_routes", "page_handlers"]
