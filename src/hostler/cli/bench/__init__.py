"""What this machine gives: `hostler bench`."""
