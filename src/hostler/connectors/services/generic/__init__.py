"""Connectors for any service: what it is, and how it speaks, is said by configuration."""
