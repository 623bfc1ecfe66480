"""Models that Replicate's Cog serves over HTTP."""
