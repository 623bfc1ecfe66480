"""How a service is driven: transports carry, services speak, the catalogue finds."""
