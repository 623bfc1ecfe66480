"""Several real servers on loopback, each with a folder and a port of its own: what a fail-over needs."""

from hostler.chaos.nodes import HOST, SAFE, Node, free_ports

__all__ = ["HOST", "SAFE", "Node", "free_ports"]
