"""What is said: pure, frozen message shapes that every room shares."""
