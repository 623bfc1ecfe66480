"""One folder per AI service; `<service>/<service>_<transport>.py` holds `<Service><Transport>Connector`."""
