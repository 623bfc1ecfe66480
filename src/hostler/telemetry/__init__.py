"""How we watch: one catalogue of names, metrics, logs, and a wrapper that measures a port once."""
