"""Where jobs wait: adapters of the broker ports (the engine, and a model in memory for tests)."""
