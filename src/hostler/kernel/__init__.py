"""What is true everywhere: errors, units, settings."""
