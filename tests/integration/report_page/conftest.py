"""A real headless Chromium; skipped, with the reason, where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VARIABLE = "EMBEDDING_EXPORTER_TEST_BROWSER"


def browser_path() -> str | None:
    return os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Closed after each module: while it is open, an event loop runs in this thread."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pip install 'embedding-exporter[dev]'"
    )
    path = browser_path()
    if path is None:
        pytest.skip(f"no Chromium here: `make browser` installs one, or name it in {VARIABLE}")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu"],  # root, in containers
        )
        yield opened
        opened.close()


@pytest.fixture
def show(browser, tmp_path) -> Iterator[Callable[..., object]]:
    """Open a page in a window of its own; `page.asked` holds what it asked the network for."""
    with ExitStack() as windows:

        def open_page(text: str, *, width: int = 1280, scheme: str = "light"):
            file = Path(tmp_path / "page.html")
            file.write_text(text, encoding="utf-8")
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            windows.callback(context.close)
            page = context.new_page()
            page.asked = []
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(file.as_uri())
            return page

        yield open_page
