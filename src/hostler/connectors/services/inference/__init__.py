"""Servers that speak the Open Inference Protocol, version 2: Triton, KServe, MLServer and others."""
