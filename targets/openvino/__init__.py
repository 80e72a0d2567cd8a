"""Intel OpenVINO for CPUs."""
