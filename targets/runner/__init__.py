"""The self-contained program that runs on the device."""
