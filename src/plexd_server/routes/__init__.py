"""The HTTP interface: one file for each group of paths."""

from plexd_server.routes.fast_path import FastPath
from plexd_server.routes.health import health_routes
from plexd_server.routes.mesh import mesh_routes
from plexd_server.routes.nodes import node_routes
from plexd_server.routes.openapi import openapi_routes
from plexd_server.routes.pages import page_routes
from plexd_server.routes.register import registration_routes
from plexd_server.routes.reports import Reports, report_routes
from plexd_server.routes.state import state_routes

__all__ = [
    "FastPath",
    "Reports",
    "health_routes",
    "mesh_routes",
    "node_routes",
    "openapi_routes",
    "page_routes",
    "registration_routes",
    "report_routes",
    "state_routes",
]
