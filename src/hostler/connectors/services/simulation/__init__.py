"""The simulated service, driven like any other: nothing here knows that it is simulated."""
