"""`report.html`: one page that loads nothing, says everything, and takes any text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from deliver_records import CASES, FLOAT32, FULL_QUANTIZATION, HOSTILE, TARGET, with_target

from exporter.deliver.report import document_of, figures, parse_report, to_html, to_json
from exporter.deliver.report.headline import sentence
from exporter.deliver.report.layer_groups import layer_costs
from exporter.deliver.report.text import one_line

VOID = {"meta", "img", "br"}
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def report(name: str):
    return parse_report(to_json(document_of(CASES[name])))


class Page(HTMLParser):
    """Elements in order, with their attributes; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for kind, attributes in self.elements if kind == tag]


@pytest.fixture(params=CASES)
def page(request) -> Page:
    return Page(to_html(report(request.param)))


def test_it_is_one_file_that_loads_nothing_and_runs_nothing(page):
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object"})
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.of("img"))
    assert all(a["href"].startswith("#") for a in page.of("a"))
    assert not any(name.startswith("on") for _, at in page.elements for name in at)
    policy = [at["content"] for at in page.of("meta") if "http-equiv" in at]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_links_lead_to_places_that_are_there_once(page):
    ids = [at["id"] for _, at in page.elements if "id" in at]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in page.of("a")} <= set(ids)
    assert {at["aria-labelledby"] for at in page.of("section")} <= set(ids)


def test_those_who_do_not_see_it_are_told(page):
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == len(page.of("main")) == 1
    assert all(image.get("alt") for image in page.of("img"))
    assert all(at.get("scope") in ("col", "row") for at in page.of("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    regions = [at for _, at in page.elements if at.get("role") == "group"]
    assert regions
    assert all(at["tabindex"] == "0" and at["aria-label"] for at in regions)


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_comes_first_in_words_and_signs(name):
    made = report(name)
    page = Page(to_html(made))
    said = one_line(sentence(made))
    assert page.text.index(" ".join(said.split())[:40]) < page.text.index("All devices", 200)
    assert f"Exit code {made.exit_code}" in page.text


@pytest.mark.parametrize("name", CASES)
def test_every_check_and_candidate_is_there(name):
    made = report(name)
    text = Page(to_html(made)).text
    for target in made.targets:
        for check in target.checks:
            if check.reason:
                assert " ".join(one_line(check.reason).split())[:30] in text
        for candidate in target.candidates:
            assert candidate.status in text


def test_every_figure_of_the_record_is_on_the_page():
    made = report("several")
    text = Page(to_html(made)).text
    target = made.targets[0]
    fidelity = target.fidelity
    shown = [figures.ratio_estimate(one.speedup) for one in target.latency]
    shown += [figures.milliseconds(one.p99_ms) for one in target.latency if one.p99_ms]
    shown += [figures.check_interval(one) for one in target.checks if one.interval]
    shown += [figures.beside_reference(one.recall, one.reference_recall) for one in fidelity.slices]
    shown += [figures.percent_estimate(one.kept) for one in made.compatibility.cells]
    shown += [one.name for one in target.variants]
    shown += [one.name for one in layer_costs(target.quantization.sensitivity)]
    shown += [near.text for one in fidelity.worst for near in (*one.lost, *one.gained)]
    shown += [*target.executed_precisions, *target.tool_versions.values()]
    shown += [*made.provenance.settings.values(), *made.provenance.tool_versions.values()]
    shown += [made.model.weights_sha256, made.model.tokenizer_sha256, made.model.graph.sha256]
    shown += [one.space_id for one in made.compatibility.members]
    shown += [one.reason for one in made.compatibility.missing]
    assert len(shown) > 60
    assert [one for one in shown if " ".join(one_line(one).split()) not in text] == []


def test_what_does_not_pass_is_named_before_the_devices():
    made = report("several")
    text = Page(to_html(made)).text
    before = text[: text.index("Before you rely on it")]
    for target in made.targets:
        for check in target.checks:
            assert (check.verdict == "pass") or one_line(check.reason) in before
    assert "not run: there is no NVIDIA driver on this machine" in before
    assert "What does not pass" not in Page(to_html(report("pass"))).text


def test_pictures_are_well_formed(page):
    for image in page.of("img"):
        ET.fromstring(b64decode(image["src"].partition(",")[2]))


@pytest.mark.parametrize("text", [ATTACK, HOSTILE])
def test_a_hostile_text_stays_text(text):
    import json

    document = json.loads(to_json(document_of(CASES["pass"])))
    document["model"]["id"] = text
    document["provenance"]["command"] = text
    target = document["targets"][0]
    target["target"] = target["device"] = target["reason"] = text
    target["fidelity"]["worst"][0]["text"] = text
    for check in target["checks"]:
        check["reason"] = text
    page = Page(to_html(parse_report(json.dumps(document).encode())))
    plain = Page(to_html(report("pass")))
    count = {tag for tag, _ in page.elements}
    assert count == {tag for tag, _ in plain.elements}
    assert not any(name.startswith("on") for _, at in page.elements for name in at)


def test_the_escaping_is_what_protects(monkeypatch):
    """The negative twin: without it the same text becomes an element."""
    import jinja2

    real = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **o: real(**{**o, "autoescape": False}))
    import json

    document = json.loads(to_json(document_of(CASES["pass"])))
    document["provenance"]["command"] = ATTACK
    assert "<script>" in to_html(parse_report(json.dumps(document).encode()))


def test_a_training_is_shown_as_a_picture_and_in_figures():
    trained = with_target(replace(TARGET, quantization=FULL_QUANTIZATION))
    page = to_html(parse_report(to_json(document_of(trained))))
    assert page.count("How training took drift away.") == 2, "its caption, and the name of its area"
    assert "Looks at 100 held-out texts" in page
    assert "How training took drift away." not in to_html(report("pass"))


def test_fp32_itself_shows_its_time_where_there_is_nothing_to_compare():
    alone = tuple(replace(one, speedup=None) for one in TARGET.latency)
    itself = with_target(replace(TARGET, recipe=FLOAT32, latency=alone))
    page = to_html(parse_report(to_json(document_of(itself))))
    cards = re.findall(r'<div class="card"><b>(.*?)</b><span>(.*?)</span>', page)
    mixes = [(value, words) for value, words in cards if words.startswith("mix-")]
    assert len(mixes) == 2
    assert all(value.endswith("ms") and "this is FP32 itself" in words for value, words in mixes)
    compared = re.findall(r'<div class="card"><b>(.*?)</b>', to_html(report("pass")))
    assert compared[0].endswith("×")
