"""AI services that Hostler runs itself: providers that load when they are first used, behind one HTTP door."""
