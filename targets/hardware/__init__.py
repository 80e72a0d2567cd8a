"""Capability as data and live detection."""
