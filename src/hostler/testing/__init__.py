"""How you test with Hostler: conformance suites, fake clock, builders. Shipped, for users too."""
