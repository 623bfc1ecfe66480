"""One primary, two replicas and three sentinels on loopback, ready to fail over."""

from hostler.chaos.sentinel_set import SERVICE, SentinelSet

__all__ = ["SERVICE", "SentinelSet"]
