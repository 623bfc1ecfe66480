"""Simulated AI services: servers of their own, with knobs and a log of effects; they know nothing of Hostler."""
