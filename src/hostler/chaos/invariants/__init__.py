"""The invariants of the reliability suite, each a rule over a recorded history."""
