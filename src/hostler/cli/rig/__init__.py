"""`hostler chaos run`: a rig of real processes that is broken on purpose, and judged."""
