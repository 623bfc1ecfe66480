"""Where it is wired: the command line, and the processes that it starts."""
