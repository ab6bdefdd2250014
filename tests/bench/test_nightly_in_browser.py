"""The page over 400 nights in a headless Chromium: drawn, filtered and quiet, on a screen and on a telephone."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_nights import Nights

from bench.browser import browser, chromium_path
from bench.nightly.page import index

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines = {0: "vllm 0.31.0", 200: "vllm 0.32.0", 300: "vllm 0.33.0"}
    nights = Nights(400, engines=engines, slower={0: 1.0, 300: 1.12}, wrong=[390, 395, 399], failed={50: "full"})
    file = tmp_path_factory.mktemp("nights") / "index.html"
    file.write_text(index(nights.make()))
    return file


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if chromium_path() is None:
        missing = "no Chromium was found: install it, or name it in the environment variable CHROMIUM"
        if os.environ.get("PD_HARNESS_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with browser() as started:
        yield started


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_drawn_and_can_be_filtered(chromium: Any, file: Path, size: tuple[int, int], theme: str) -> None:
    complaints: list[str] = []
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    page = context.new_page()
    page.on("console", lambda one: complaints.append(one.text) if one.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    places = page.locator("[data-draw]").all()
    assert len(places) == 7
    for place in places:
        place.scroll_into_view_if_needed()
        place.and_(page.locator("[data-drawn=yes]")).wait_for(state="attached")
    page.get_by_role("button", name="invalid").click()
    assert page.locator("#table tbody tr:visible").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []
    context.close()
