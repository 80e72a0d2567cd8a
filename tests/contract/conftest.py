"""Assertions in the suite's own modules say what they compared."""

import pytest

pytest.register_assert_rewrite("checks", "conformance", "subjects", "device_checks")
