"""`report.md`: what a release manager reads, also when the texts are hostile."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from deliver_records import CASES, FULL_QUANTIZATION, HOSTILE, QUANTIZATION, RIGHT_TO_LEFT
from markdown_it import MarkdownIt

from exporter.deliver.report import document_of, parse_report, plots_of, to_json, to_markdown
from exporter.deliver.report.markdown_quantization import quantization_section
from exporter.values import MethodScore

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def markdown(name: str) -> str:
    return to_markdown(parse_report(to_json(document_of(CASES[name]))))


def tokens(text: str) -> list:
    top = PARSER.parse(text)
    return top + [child for token in top for child in token.children or ()]


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    """Set UPDATE_GOLDEN=1 to write the files anew, then read the difference."""
    path = GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(markdown(name), encoding="utf-8")
    assert markdown(name) == path.read_text(encoding="utf-8")


def test_the_verdict_comes_first_in_one_sentence():
    lines = markdown("pass").splitlines()
    assert lines[2] == (
        "**✓ PASS**: bfloat16 for openvino on local (Intel(R) Xeon(R) Processor @ 2.60GHz) runs "
        "1.92× [1.87, 1.98] as fast as FP32 and keeps 99.6 % of the neighbours."
    )


def test_a_percentile_without_enough_samples_says_how_many_are_needed():
    text = markdown("pass")
    assert "– (24 samples; 64 needed)" in text
    assert "– (240 samples; 662 needed)" in text


def test_a_target_that_was_not_run_shows_no_figures():
    text = markdown("not_run")
    assert "tensorrt on local was not run: there is no NVIDIA driver on this machine" in text
    assert "Not measured." in text
    assert " ms" not in text


def test_a_missed_threshold_is_never_rounded_to_look_kept():
    assert "0.96999 | [0.96910, 0.96999] | ≥ 0.97000" in markdown("fail")


def test_what_came_from_the_cache_says_when_it_was_taken():
    assert "| embed the reference | 2026-03-01T09:00:00+00:00 |" in markdown("pass")


@pytest.mark.parametrize("name", CASES)
def test_every_row_of_a_table_has_its_columns_and_no_html_or_link_appears(name):
    found = {token.type for token in tokens(markdown(name))}
    assert not found & {"html_block", "html_inline", "link_open", "s_open"}
    for table in tables(markdown(name)):
        assert len({row.replace("\\|", "").count("|") for row in table}) == 1


@pytest.mark.parametrize("name", CASES)
def test_the_only_images_are_the_plots_that_lie_beside_it(name):
    images = [token.attrs["src"] for token in tokens(markdown(name)) if token.type == "image"]
    assert sorted(images) == sorted(plots_of(parse_report(to_json(document_of(CASES[name])))))


def test_static_int8_names_the_layers_that_cost_most_first_and_counts_the_rest():
    text = markdown("pass")
    section = text[text.index("### Static int8: how it was found") :]
    methods, layers = tables(section)[:2]
    assert methods[2:] == [
        "| smoothed, compensated rounding | 1.2e-3 | ✓ chosen |",
        "| entropy, nearest rounding | 9.8e-2 |  |",
    ]
    assert len(layers) == 2 + 12
    assert layers[2] == "| `encoder.layer.0.output.dense` | 2.0e-4 | 25.0 % | 8.2 % |"
    attention = "| `encoder.layer.6.attention.self.{query,key,value}` | 7.0e-5 | 8.7 % | 6.0 % |"
    assert attention in layers
    assert "2 more rows have 3.7 % of all drifts" in section
    assert "(1): `encoder.layer.0.output.dense`" in section
    assert "270 calibration texts (12430 tokens)" in section


def test_a_target_without_static_int8_has_no_such_section():
    assert "Static int8" in markdown("pass")
    assert "Static int8" not in markdown("not_run")


def tables(text: str) -> list[list[str]]:
    found, lines = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            found.append(lines)
            lines = []
    return found


def test_the_matrix_says_what_every_pair_is_and_marks_doubt_and_direction():
    text = markdown("several")
    section = text[text.index("## One index for several artifacts") :].split("\n## ")[0]
    grid = tables(section)[0]
    assert len(grid) == 2 + 3
    mobile = "`onnxruntime-mobile int8 on emulated:cortex-a72`"
    assert grid[3].startswith("| `openvino bfloat16` | ✓ drop-in 99.6 %")
    assert "| ✗ re-index 51.0 % [50.6, 51.4] ⇄ |" in grid[3]
    assert f"| {mobile} | ✓ drop-in 95.4 % [95.0, 95.8] ⇄ | ~ degraded? 95.3 %" in grid[4]
    assert "would decide" in section
    assert "not compared: `tensorrt`: there is no NVIDIA driver on this machine" in section
    assert "simulated here" in section
    assert "`abababababababab:int8:0123456789ab`" in section


def test_one_artifact_alone_has_no_matrix():
    assert "One index for several artifacts" not in markdown("pass")


def test_hostile_texts_keep_the_structure():
    usual = headings("pass")
    shown = [h for h in headings("hostile") if h != "One index for several artifacts"]
    assert [h for h in shown if not h.startswith("openvino on")][1:] == [
        h for h in usual if not h.startswith("openvino on")
    ][1:]


def headings(name: str) -> list[str]:
    parsed = PARSER.parse(markdown(name))
    return [parsed[i + 1].content for i, t in enumerate(parsed) if t.type == "heading_open"]


def test_hostile_texts_are_shown_and_not_obeyed():
    text = markdown("hostile")
    assert "\x1b" not in text
    assert "\u202e" not in text
    shown = [token.content for token in tokens(text) if token.type == "code_inline"]
    assert any(content.startswith("<script>alert(1)</script>") for content in shown)
    assert f"\u2068{RIGHT_TO_LEFT}\u2069" in shown
    assert HOSTILE not in text


def test_attention_in_int8_is_told_with_what_it_was_compared_with():
    def section(attention: tuple[MethodScore, ...]) -> str:
        return quantization_section(replace(QUANTIZATION, attention=attention), "one")

    mse, minmax = (
        MethodScore(method=name, drift=drift, chosen=name == "mse")
        for name, drift in (("mse", 0.0037), ("minmax", 0.0039))
    )
    line = "attention in int8, ranges and drift with all layers in int8: mse 3.7e-3"
    assert f"{line}; others: minmax 3.9e-3\n" in section((mse, minmax))
    assert f"{line}\n" in section((mse,))
    assert "attention in int8" not in section(())


def test_tables_stand_among_layers_and_classes_beside_training():
    text = quantization_section(FULL_QUANTIZATION, "one")
    (row,) = (line for line in text.splitlines() if "embedding tables in int8" in line)
    assert "11.8 MB for 46.9 MB" in row and "3.4e-5" in row
    (line,) = (line for line in text.splitlines() if "trained for 50 steps" in line)
    assert (
        "nearest of 77 class centres right for 85.0 % of 98, 80.0 % before, 90.0 % in FP32" in line
    )
    bare = quantization_section(QUANTIZATION, "one")
    assert "embedding tables" not in bare and "class centres" not in bare
