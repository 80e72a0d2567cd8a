"""The plots: well-formed, harmless, true to the figures, and readable."""

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from deliver_records import (
    CASES,
    FLOAT32,
    FULL_QUANTIZATION,
    QUANTIZATION,
    RECORD,
    SEVERAL,
    TARGET,
    candidates,
    fidelity,
    latency,
    with_target,
)

from exporter.deliver.report import document_of, parse_report, plots_of, svg, to_json
from exporter.deliver.report.label_layout import Box, place_labels
from exporter.deliver.report.layer_groups import group_name
from exporter.deliver.report.plot import plot_stems
from exporter.values import CandidateResult, CurvePoint, ExportRecord, LayerSensitivity

SVG = "{http://www.w3.org/2000/svg}"
KNOWN_TAGS = {"svg", "title", "desc", "style", "rect", "text", "line", "path", "circle"}


def plots(record: ExportRecord) -> dict[str, str]:
    return plots_of(parse_report(to_json(document_of(record))))


def tree(record: ExportRecord, kind: str) -> ElementTree.Element:
    return ElementTree.fromstring(plots(record)[f"{kind}-openvino.svg"])


def texts(root: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def boxes(root: ElementTree.Element) -> list[tuple[str, Box]]:
    """Every text with the place that it takes; the title's letters are larger."""
    found = []
    for one in root.iter(f"{SVG}text"):
        if one.get("class") == "title":
            continue
        width, x, y = svg.text_width(one.text), float(one.get("x")), float(one.get("y"))
        left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[one.get("text-anchor")]
        found.append((one.text, Box(left=left, top=y - 9, right=left + width, bottom=y + 3)))
    return found


def bars(root: ElementTree.Element, kind: str) -> list[float]:
    """Widths of the bars without the legend's."""
    return [float(r.get("width")) for r in root.iter(f"{SVG}rect") if r.get("class") == kind][1:]


def candidate(
    name: str, speedup: float, overlap: float, *, status: str = "eligible", on_front: bool = False
) -> CandidateResult:
    return CandidateResult(
        recipe=replace(FLOAT32, name=name, precision="int8"),
        status=status,
        reason="was tried",
        fidelity=fidelity(0.999, 0.99, 0.98, overlap),
        latency=(latency("mix-single", 2.0, speedup), latency("mix-batched", 90.0, speedup, 12)),
        on_front=on_front,
    )


def raced(*tried: CandidateResult, **changes: object) -> ExportRecord:
    return with_target(replace(TARGET, candidates=(candidates()[0], *tried)), **changes)


# ---------------------------------------------------------------------------- any plot


@pytest.mark.parametrize("name", CASES)
def test_every_plot_is_well_formed_and_holds_nothing_that_runs_or_loads(name):
    for drawn in plots(CASES[name]).values():
        root = ElementTree.fromstring(drawn)
        assert {one.tag.removeprefix(SVG) for one in root.iter()} <= KNOWN_TAGS
        attributes = {key for one in root.iter() for key in one.attrib}
        assert not {key for key in attributes if key.startswith("on") or "href" in key}
        assert not re.search(r"url\(|@import|<!", drawn)
        assert not {"\x1b", "\u202e", "\x00", "\ufffe"} & set(drawn)


def test_hostile_names_are_shown_as_words():
    drawn = plots(CASES["hostile"])
    assert sorted(drawn) == ["pareto-openvino.svg", "sensitivity-openvino.svg"]
    for one in drawn.values():
        said = texts(ElementTree.fromstring(one))
        assert any(words.startswith("<script>alert(1)") for words in said)
    assert any("]]><b>&amp;" in words for words in texts(tree(CASES["hostile"], "sensitivity")))


@pytest.mark.parametrize("kind", ["sensitivity", "pareto"])
@pytest.mark.parametrize("name", ["pass", "hostile"])
def test_nothing_is_clipped_and_no_words_cover_others(name, kind):
    root = tree(CASES[name], kind)
    paper = Box(left=0, top=0, right=float(root.get("width")), bottom=float(root.get("height")))
    for (words, box), (others, other) in itertools.combinations(boxes(root), 2):
        assert box.overlap(other) == 0.0, (words, others)
    for words, box in boxes(root):
        assert box.overlap(paper) == pytest.approx(box.area), words


@pytest.mark.parametrize("kind", ["sensitivity", "pareto"])
def test_a_plot_is_described_in_words_and_knows_light_and_dark(kind):
    root = tree(RECORD, kind)
    assert root.get("role") == "img"
    assert "openvino on local" in root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc")) > 100
    assert "prefers-color-scheme:dark" in root.findtext(f"{SVG}style")


def test_targets_of_one_name_get_files_of_their_own():
    targets = document_of(SEVERAL).targets
    assert plot_stems(targets) == ("openvino", "tensorrt", "openvino-2")
    assert sorted(plots(SEVERAL)) == [
        "pareto-openvino-2.svg",
        "pareto-openvino.svg",
        "sensitivity-openvino-2.svg",
        "sensitivity-openvino.svg",
    ]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a b)", "模型", "A\x00", "."])
def test_a_targets_name_never_leaves_the_folder_nor_the_link(name):
    for file in plots(with_target(replace(TARGET, target=name))):
        assert re.fullmatch(r"(sensitivity|pareto)-[a-z0-9-]+\.svg", file)


def test_nothing_is_drawn_where_there_are_no_figures():
    assert plots(CASES["not_run"]) == {}
    empty = replace(TARGET, quantization=replace(QUANTIZATION, sensitivity=()), candidates=())
    assert plots(with_target(empty)) == {}


# ------------------------------------------------------------------------ the training


def trained(*drifts: float, every: int = 100) -> ExportRecord:
    training = FULL_QUANTIZATION.training
    looks = tuple(
        CurvePoint(step=every * number, loss=0.003, drift=drift)
        for number, drift in enumerate(drifts)
    )
    quantization = replace(FULL_QUANTIZATION, training=replace(training, curve=looks))
    return with_target(replace(TARGET, quantization=quantization))


def test_a_training_is_drawn_as_deep_as_it_goes():
    root = tree(trained(0.0012, 0.0008, 0.0006, 0.0007), "training")
    marks = [one for one in root.iter(f"{SVG}circle")]
    places = [(float(one.get("cx")), float(one.get("cy"))) for one in marks]
    assert len(places) == 4
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    first, _, lowest, last = (y for _, y in places)
    assert lowest > last > first, "down the paper is less drift"
    (axis,) = (one for one in root.iter(f"{SVG}line") if one.get("class") == "axis")
    bottom = float(axis.get("y1"))
    assert (bottom - lowest) / (bottom - first) == pytest.approx(0.5, abs=0.01), "from zero on"
    said = texts(root)
    assert "1.2e-3" in said and "6.0e-4" in said
    assert "6.0e-4 at its lowest after 200 steps" in root.findtext(f"{SVG}desc")


@pytest.mark.parametrize(
    ("drifts", "every"),
    [
        ((0.00063, 0.00055, 0.0005, 0.00049, 0.00047, 0.00047, 0.00046), 100),
        ((0.00063, 0.00062, 0.0007, 0.0008, 0.0009, 0.0009, 0.0009, 0.0009, 0.0009, 0.0009), 50),
        ((0.0012, 0.0008), 3),
        ((0.0012, 0.00001), 1),
    ],
)
def test_the_words_of_a_training_cover_nothing_and_stay_on_the_paper(drifts, every):
    root = tree(trained(*drifts, every=every), "training")
    paper = Box(left=0, top=0, right=float(root.get("width")), bottom=float(root.get("height")))
    for (words, box), (others, other) in itertools.combinations(boxes(root), 2):
        assert box.overlap(other) == 0.0, (words, others)
    for words, box in boxes(root):
        assert box.overlap(paper) == pytest.approx(box.area), words


def test_one_look_is_no_curve():
    assert not [file for file in plots(trained(0.0012)) if file.startswith("training")]
    assert not [file for file in plots(RECORD) if file.startswith("training")]


# ------------------------------------------------------------------------- sensitivity


def test_bars_stand_in_execution_order_with_lengths_as_the_shares():
    groups = (
        LayerSensitivity(layers=("a.query", "a.key"), drift=1e-4, work_share=0.6),
        LayerSensitivity(layers=("b",), drift=3e-4, work_share=0.4),
    )
    quantization = replace(QUANTIZATION, sensitivity=groups)
    root = tree(with_target(replace(TARGET, quantization=quantization)), "sensitivity")
    said = texts(root)
    assert said.index("a.{query,key}") < said.index("1.0e-4") < said.index("b")
    drifts, works = bars(root, "bar"), bars(root, "outline")
    assert drifts[1] / drifts[0] == pytest.approx(3.0, rel=0.01)
    assert works[0] / drifts[1] == pytest.approx(0.6 / 0.75, rel=0.01)
    assert works[1] / works[0] == pytest.approx(2 / 3, rel=0.01)
    assert "share of all layers (%)" in said
    assert "b: 3.0e-4, 75.0 % of the sum, for 40.0 %" in root.findtext(f"{SVG}desc")


def test_words_stand_clear_of_the_bars():
    root = tree(RECORD, "sensitivity")
    for one in root.iter(f"{SVG}rect"):
        if one.get("class") == "paper":
            continue
        x, y, width, height = (float(one.get(key)) for key in ("x", "y", "width", "height"))
        bar = Box(left=x, top=y, right=x + width, bottom=y + height)
        assert [words for words, box in boxes(root) if box.overlap(bar)] == []


def test_layers_without_any_drift_can_be_drawn():
    groups = tuple(replace(one, drift=0.0) for one in QUANTIZATION.sensitivity)
    quantization = replace(QUANTIZATION, sensitivity=groups)
    root = tree(with_target(replace(TARGET, quantization=quantization)), "sensitivity")
    assert set(bars(root, "bar")) == {0.0}


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        (("a.b.c",), "a.b.c"),
        (("a.q", "a.k"), "a.{q,k}"),
        (("a.q", "b.k"), "a.q, b.k"),
        (("q", "k"), "q,k"),
    ],
)
def test_a_group_is_named_by_what_its_paths_share(layers, name):
    assert group_name(layers) == name


# ------------------------------------------------------------------------------ Pareto


def test_marks_tell_front_and_dropped_apart_without_colour():
    root = tree(
        raced(
            candidate("a", 2.0, 0.98, on_front=True),
            candidate("b", 1.5, 0.97),
            candidate("c", 2.5, 0.9, status="dropped", on_front=True),
            candidate("d", 1.2, 0.91, status="dropped"),
        ),
        "pareto",
    )
    diamonds = [one.get("class") for one in root.iter(f"{SVG}path")]
    circles = [one.get("class") for one in root.iter(f"{SVG}circle")]
    # The legend comes first: a diamond, a circle and a hollow circle.
    assert diamonds == ["mark", "front", "mark", "mark", "mark hollow"]
    assert circles == ["mark", "mark hollow", "mark", "mark hollow"]


def test_the_front_is_drawn_from_left_to_right_in_steps():
    root = tree(
        raced(
            candidate("fast", 3.0, 0.96, on_front=True), candidate("mid", 2.0, 0.98, on_front=True)
        ),
        "pareto",
    )
    (front,) = (one.get("d") for one in root.iter(f"{SVG}path") if one.get("class") == "front")
    corners = [tuple(map(float, corner.split())) for corner in front[2:].split(" L ")]
    assert corners == sorted(corners)
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners))


def test_faster_lies_to_the_right_and_closer_lies_higher():
    root = tree(raced(candidate("a", 2.0, 0.98), candidate("b", 3.0, 0.97)), "pareto")
    (ax, ay), (bx, by) = (
        (float(one.get("cx")), float(one.get("cy"))) for one in list(root.iter(f"{SVG}circle"))[2:]
    )
    assert ax < bx
    assert ay < by
    assert "overlap@10: FP32's own 10 nearest neighbours kept (%)" in texts(root)


def test_only_the_mixes_that_decide_count():
    one = candidate("a", 2.0, 0.98)
    one = replace(
        one, latency=(latency("mix-single", 1.0, 4.0), latency("mix-batched", 1.0, 1.0, 12))
    )
    balanced, throughput = (
        tree(
            raced(one, provenance=replace(RECORD.provenance, settings={"objective": objective})),
            "pareto",
        )
        for objective in ("balanced", "throughput")
    )
    assert "a: 2.00×" in balanced.findtext(f"{SVG}desc")
    assert "a: 1.00×" in throughput.findtext(f"{SVG}desc")
    assert "speed-up over FP32 (×), mix-batched" in texts(throughput)


def test_one_without_overlap_turns_the_axis_to_the_mean_cosine():
    one = candidate("a", 2.0, 0.98)
    blind = replace(one, fidelity=replace(one.fidelity, overlap_at_k=None))
    assert "mean cosine with FP32" in texts(tree(raced(blind), "pareto"))


def test_recipes_that_were_not_judged_are_counted_and_not_drawn():
    said = texts(tree(RECORD, "pareto"))
    assert any("2 not judged, not shown" in words for words in said)
    assert "int8-weights" not in said


def test_every_judged_recipe_is_named():
    said = texts(tree(RECORD, "pareto"))
    assert {"float32", "bfloat16 (chosen)", "int8-guarded"} <= set(said)


def test_a_single_point_is_no_plot():
    assert "pareto-openvino.svg" not in plots(raced())


def test_equal_figures_can_be_drawn():
    same = [candidate(f"same-{i}", 1.0, 1.0) for i in range(3)]
    root = tree(raced(*same), "pareto")
    assert {"same-0", "same-1", "same-2"} <= set(texts(root))


@pytest.mark.parametrize("spread", [0.05, 0.01, 0.001])
def test_labels_of_eight_points_close_together_cover_nothing(spread):
    crowd = [
        candidate(f"int8-static-{i}", 2.5 + spread * i, 0.96 + spread / 10 * (i * 3 % 8))
        for i in range(8)
    ]
    root = tree(raced(*crowd), "pareto")
    labels = boxes(root)
    for (words, box), (others, other) in itertools.combinations(labels, 2):
        assert box.overlap(other) == 0.0, (words, others)
    for words, box in labels:
        for mark in root.iter(f"{SVG}circle"):
            x, y, r = (float(mark.get(key)) for key in ("cx", "cy", "r"))
            marked = Box(left=x - r, top=y - r, right=x + r, bottom=y + r)
            assert box.overlap(marked) == 0.0, words


def test_labels_stay_in_their_area_also_in_its_corner():
    area = Box(left=0, top=0, right=300, bottom=200)
    corners = [(2.0, 2.0), (298.0, 2.0), (2.0, 198.0), (298.0, 198.0)]
    placed = place_labels(corners, [(80.0, 16.0)] * 4, [], [], area)
    assert [box.overlap(area) for box in placed] == pytest.approx([80.0 * 16.0] * 4)


def test_labels_without_any_room_are_placed_all_the_same():
    area = Box(left=0, top=0, right=50, bottom=20)
    assert len(place_labels([(25.0, 10.0)] * 3, [(80.0, 16.0)] * 3, [], [], area)) == 3


# ------------------------------------------------------------------------------- ticks


@pytest.mark.parametrize(
    ("low", "high", "values", "decimals"),
    [
        (0.0, 18.0, (0.0, 5.0, 10.0, 15.0), 0),
        (0.9, 2.6, (1.0, 1.5, 2.0, 2.5), 1),
        (0.99991, 1.0, (0.99992, 0.99994, 0.99996, 0.99998, 1.0), 5),
    ],
)
def test_ticks_are_round_and_have_the_digits_that_they_need(low, high, values, decimals):
    assert svg.ticks(low, high) == (pytest.approx(values), decimals)
