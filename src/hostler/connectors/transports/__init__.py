"""Protocols on the wire, without a word about any service."""
