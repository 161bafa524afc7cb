"""What every request passes: server, protocol, TLS, Host check, limits, bodies, refusals."""

__all__: list[str] = []
