"""`report.html` in a real browser: for every reader, on every screen, whatever texts it holds."""

from __future__ import annotations

import jinja2
import pytest
from report_pages import ATTACK, FAULTY, PAGES, attacked, whole

from exporter.deliver.report import to_html

pytestmark = pytest.mark.browser

WIDE, NARROW = 1280, 360
OPEN_ALL = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
TOO_WIDE = """() => {
  const edge = document.documentElement.clientWidth;
  const wide = [...document.body.querySelectorAll('*')].filter(one =>
    one.getBoundingClientRect().right > edge + 1 && !one.parentElement.closest('.scroll'));
  const found = wide.map(one => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`);
  if (document.documentElement.scrollWidth > edge) found.push('the page scrolls sideways');
  return found;
}"""
FOCUSABLE = """() => [...document.querySelectorAll('a, summary, [tabindex="0"]')]
  .filter(one => one.checkVisibility()).length"""
FOCUSED = """() => {
  const one = document.activeElement;
  const part = one.closest('section');
  return [one === document.body ? '' : one.tagName, part ? part.getAttribute('aria-labelledby')
    : '', one.getAttribute('aria-label') || one.textContent.trim().slice(0, 60)];
}"""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: make() for name, make in PAGES.items()}


def violations(page) -> list[str]:
    """What axe-core finds wrong, by its best practices as well."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response
    assert len(found["passes"]) > 10, "axe-core looked at nothing"
    return [
        f"{one['id']}: {node['html'][:90]}" for one in found["violations"] for node in one["nodes"]
    ]


def asked_outside(page) -> list[str]:
    return [url for url in page.asked if not url.startswith(("file:", "data:"))]


# -------------------------------------------------------------------------- for everybody


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        ("whole", "light", WIDE),
        ("whole", "light", NARROW),
        ("whole", "dark", WIDE),
        ("whole", "dark", NARROW),
        ("hostile", "light", NARROW),
        ("hostile", "dark", WIDE),
        ("crashed", "dark", NARROW),
    ],
)
def test_it_is_accessible_and_fits_the_screen(name, scheme, width, show, texts):
    page = show(texts[name], width=width, scheme=scheme)
    assert page.evaluate(TOO_WIDE) == []
    page.evaluate(OPEN_ALL)
    assert page.evaluate(TOO_WIDE) == []
    assert violations(page) == []
    assert asked_outside(page) == []


def test_the_same_checks_find_a_faulty_page(show):
    """The negative twin."""
    page = show(FAULTY, width=NARROW)
    wide = page.evaluate(TOO_WIDE)
    assert "the page scrolls sideways" in wide
    assert any("too wide" in one for one in wide)
    from axe_playwright_python.sync_playwright import Axe

    found = {one["id"] for one in Axe().run(page).response["violations"]}
    assert {"image-alt", "color-contrast", "scrollable-region-focusable"} <= found
    assert asked_outside(page) == ["http://far.invalid/x.png"]


def test_light_and_dark_are_what_the_reader_asked_for(show, texts):
    colours = {
        scheme: show(texts["whole"], scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colours == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}


def test_every_picture_is_drawn(show, texts):
    page = show(texts["whole"])
    widths = page.evaluate("[...document.images].map(one => one.naturalWidth)")
    assert len(widths) >= 3
    assert min(widths) > 100


# --------------------------------------------------------------------------- by keyboard


def unreached(page) -> list[str]:
    """Go through the page by Tab; name the sections and scrolling parts that got no focus."""
    sections = page.evaluate(
        "[...document.querySelectorAll('section')].map(one => one.getAttribute('aria-labelledby'))"
    )
    regions = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(one => one.checkVisibility())"
        ".map(one => one.getAttribute('aria-label'))"
    )
    assert len(regions) == len(set(regions)) > 5
    visited = []
    for _ in range(page.evaluate(FOCUSABLE)):
        page.keyboard.press("Tab")
        visited.append(page.evaluate(FOCUSED))
    assert visited[0] == ["A", "", "Skip to the results"]
    reached = {place for _, place, _ in visited}
    reached |= {label for kind, _, label in visited if kind == "DIV"}  # and no link of that name
    return [one for one in (*sections, *regions) if one not in reached]


def test_the_keyboard_reaches_every_part(show, texts):
    assert unreached(show(texts["whole"], width=NARROW)) == []


def test_what_the_keyboard_does_not_reach_is_named(show, texts):
    """The negative twin."""
    hidden = texts["whole"].replace('tabindex="0"', 'tabindex="-1"')
    assert "All devices" in unreached(show(hidden, width=NARROW))


def test_the_skip_link_leads_behind_the_navigation(show, texts):
    page = show(texts["whole"])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_a_wide_table_scrolls_by_itself_by_keyboard(show, texts):
    page = show(texts["whole"], width=NARROW)
    region = page.locator(".scroll").first
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.scroll').scrollLeft > 0")
    assert page.evaluate("window.scrollX") == 0


def test_what_is_folded_opens_by_keyboard(show, texts):
    page = show(texts["whole"])
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")


# ---------------------------------------------------------------------------- any texts


def unescaped(monkeypatch, report) -> str:
    real = jinja2.Environment
    monkeypatch.setattr(jinja2, "Environment", lambda **o: real(**{**o, "autoescape": False}))
    return to_html(report)


def test_a_script_in_a_text_is_shown_and_never_run(show):
    page = show(to_html(attacked()))
    page.evaluate(OPEN_ALL)
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 0
    assert "<script>window.owned = 1</script>" in page.inner_text("main")
    assert asked_outside(page) == []


def test_even_what_is_not_escaped_is_not_run(show, monkeypatch):
    """Two locks: the policy of the page stops what the template would let through."""
    text = unescaped(monkeypatch, attacked())
    assert ATTACK in text
    assert show(text).evaluate("window.owned") is None


def test_without_both_locks_it_would_be_run(show, monkeypatch):
    """The negative twin: the attack is a real one."""
    text = unescaped(monkeypatch, attacked()).replace("Content-Security-Policy", "nothing")
    page = show(text)
    page.wait_for_function("window.owned !== undefined")


def test_nobody_needs_colours(show):
    """Every verdict and every cell of the matrix says in words what its colour says."""
    page = show(to_html(whole()))
    words = page.evaluate(
        "[...document.querySelectorAll('.chip, .cell')].map(one => one.innerText.trim())"
    )
    known = ("PASS", "FAIL", "INCONCLUSIVE", "NOT RUN", "drop-in", "degraded", "re-index")
    assert len(words) > 20
    assert [one for one in words if not any(word in one for word in known)] == []
