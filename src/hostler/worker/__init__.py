"""Where jobs run: a worker claims jobs, drives connectors and handlers, and tells how it goes."""
