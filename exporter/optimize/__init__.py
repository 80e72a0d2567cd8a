"""What is decided: which recipe this device runs."""
