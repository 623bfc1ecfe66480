"""What breaks the system on purpose, and what judges the history of it."""
