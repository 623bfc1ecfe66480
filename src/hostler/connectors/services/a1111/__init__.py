"""Servers that speak the API of the AUTOMATIC1111 web UI for Stable Diffusion: A1111 itself, Forge and kin."""
