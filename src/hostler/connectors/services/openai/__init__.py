"""Servers that speak the OpenAI API: llama.cpp, vLLM, LiteLLM, OpenAI and others."""
