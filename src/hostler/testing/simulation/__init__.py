"""Workers, their engine and their services on one virtual clock: a seed gives one story, and a story replays."""
