"""What is decided: pure functions of what they are given; clock and dice are arguments."""
