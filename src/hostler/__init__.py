"""Hostler: one durable job fabric for fleets of AI services."""

__version__ = "0.1.0"
