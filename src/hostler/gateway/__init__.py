"""How outsiders speak to Hostler: HTTP, event streams, metrics; knows ports and contracts, never adapters."""
