"""Ways to start the runner."""
