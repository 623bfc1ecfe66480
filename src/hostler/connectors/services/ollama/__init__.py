"""Ollama: models that are pulled, loaded on demand, and unloaded when nobody asks for them."""
