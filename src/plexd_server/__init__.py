"""The control plane's metrics half: takes points from nodes, stores them, shows them."""

__all__: list[str] = []
