"""`export --device local:avx2`: the report says where its figures come from."""

from __future__ import annotations

import pytest

from targets.hardware.detect import detect_hardware

pytestmark = [pytest.mark.openvino, pytest.mark.slow]
if "avx2" not in detect_hardware().features:
    pytest.skip("needs AVX2", allow_module_level=True)


def test_the_report_says_that_latency_is_relative_only(export_tiny):
    ran = export_tiny("--precision", "float32", "--device", "local:avx2")
    assert ran.code == 0, ran.out + ran.err
    (target,) = ran.report["targets"]
    assert target["device"] == "local:avx2"
    page = (ran.folder / "reports" / "report.md").read_text("utf-8")
    for text in (page, ran.out):
        # Tables and terminals break lines, hence the words alone.
        assert "capped to AVX2" in " ".join(text.split())
        assert "latency is relative only" in " ".join(text.split())


def test_the_plain_report_does_not(export_tiny):
    ran = export_tiny("--precision", "float32")
    page = (ran.folder / "reports" / "report.md").read_text("utf-8")
    assert "capped" not in page + ran.out


def test_a_cap_beyond_any_cpu_is_refused_before_the_work(export_tiny):
    ran = export_tiny("--device", "local:avx3")
    assert ran.code == 2
    assert "error [config]: unknown instruction set 'avx3'" in ran.err
    assert not ran.folder.exists()
