"""A bundle is run as its report says, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bundle_cases import copy_of, embed

from benchmarks.bundles import (
    artifact_bytes,
    bundle_plan,
    bundle_threads,
    chosen_section,
    ensure_bundle,
    require_this_machine,
)
from targets.devices.local import LocalDevice
from targets.errors import StorageError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]


def changed(report, **changes):
    section = replace(chosen_section(report), **changes)
    return replace(report, targets=(section,))


def test_the_plan_runs_the_bundle_s_own_file(bundle, tokens):
    section = chosen_section(bundle.report)
    assert bundle.plan.model == bundle.folder / section.artifact.path
    assert dict(bundle.plan.options) == dict(section.options)
    options_bytes = (bundle.plan.model.parent / "ov_config.json").stat().st_size
    assert artifact_bytes(bundle.plan.model) + options_bytes == section.artifact_size_bytes
    again = embed(bundle.plan, tokens, bundle_threads(bundle.report))
    assert np.array_equal(again, bundle.embeddings)


def test_another_file_in_its_place_is_refused(bundle, tmp_path):
    folder = copy_of(bundle.folder, tmp_path / "out", without=("openvino_model.xml",))
    entry = (bundle.folder / "openvino" / "openvino_model.xml").read_bytes()
    (folder / "openvino" / "openvino_model.xml").write_bytes(entry + b"\n")
    with pytest.raises(StorageError, match="not the file"):
        bundle_plan(folder, bundle.report, bundle.plan.pad_token_id)


def test_other_weights_beside_it_are_refused(bundle, tmp_path):
    assert ensure_bundle(bundle.folder) == bundle.report
    folder = copy_of(bundle.folder, tmp_path / "out", without=("openvino_model.bin",))
    weights = bytearray((bundle.folder / "openvino" / "openvino_model.bin").read_bytes())
    weights[-1] ^= 1
    (folder / "openvino" / "openvino_model.bin").write_bytes(weights)
    with pytest.raises(StorageError, match="not what its manifest says") as caught:
        ensure_bundle(folder)
    assert "openvino_model.bin" in caught.value.why


def test_other_options_are_refused(bundle):
    other = changed(bundle.report, options={"INFERENCE_PRECISION_HINT": "f64"})
    with pytest.raises(StorageError, match="not be run as its report says"):
        bundle_plan(bundle.folder, other, bundle.plan.pad_token_id)


def test_a_missing_file_is_refused(bundle, tmp_path):
    folder = copy_of(bundle.folder, tmp_path / "out", without=("openvino",))
    with pytest.raises(StorageError, match="cannot be read"):
        bundle_plan(folder, bundle.report, bundle.plan.pad_token_id)


@pytest.mark.parametrize("status", ["failed", "not_run", "prepared"])
def test_an_unverified_artifact_is_refused(bundle, status):
    with pytest.raises(UsageError, match="no verified artifact"):
        chosen_section(changed(bundle.report, status=status))


def test_another_machine_s_choice_is_refused(bundle):
    here = LocalDevice().hardware()
    require_this_machine(bundle.report, here)
    with pytest.raises(UsageError, match="another machine"):
        require_this_machine(bundle.report, replace(here, features=frozenset({"sve2"})))
