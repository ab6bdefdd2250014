"""The page of a run of 10,000 requests in a headless Chromium: drawn, clicked through, legible, and quiet."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from virtual_run import virtual_report

from bench.browser import browser, chromium_path
from harness.sim import PlantedBug

REQUIRED = "PD_HARNESS_REQUIRE_BROWSER"
REQUESTS = 10_000

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def chromium(file: Path) -> Iterator[Any]:  # noqa: ARG001 - the run is made before: playwright has an event loop of its own
    if chromium_path() is None:
        missing = "no Chromium was found: install it, or name it in the environment variable CHROMIUM"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the run, in which 2 % of the requests lack the last block of their prompt's KV."""
    report = virtual_report(REQUESTS, bugs=[PlantedBug("stale_tail", 0.02)], policy="sample:200")
    assert report.outputs.mismatch
    return report.save_html(tmp_path_factory.mktemp("page") / "report.html")


class Visit:
    """A page that was opened, and what it complained of and asked for."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda one: self.complaints.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(file.as_uri())

    def draw_all(self) -> list[str]:
        """Scroll to each chart until it is drawn; returns how each ended."""
        for place in self.page.locator("[data-draw]").all():
            place.scroll_into_view_if_needed()
            place.and_(self.page.locator("[data-drawn]")).wait_for(state="attached")
        return [str(place.get_attribute("data-drawn")) for place in self.page.locator("[data-draw]").all()]


@pytest.fixture
def visit(chromium: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page at 1280x800 in the light theme, or with what the test names."""
    options = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
    context = chromium.new_context(**options | getattr(request, "param", {}))
    visit = Visit(context.new_page(), file)
    yield visit
    assert visit.complaints == []
    assert visit.asked == [file.as_uri()]
    context.close()


def test_the_file_is_as_small_as_promised(file: Path) -> None:
    assert file.stat().st_size <= 1_500_000


PHONE = {"viewport": {"width": 390, "height": 844}}
DARK = {"color_scheme": "dark"}
THEMES = [{"color_scheme": "light"}, DARK]


@pytest.mark.parametrize("visit", [*THEMES, *(theme | PHONE for theme in THEMES)], indirect=True)
def test_all_charts_are_drawn_and_nothing_is_wider_than_the_page(visit: Visit) -> None:
    assert set(visit.draw_all()) == {"yes"}
    assert (
        visit.page.locator("[data-draw] svg, [data-draw] canvas").count() >= visit.page.locator("[data-draw]").count()
    )
    wide, there = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= there


def _wait_for_charts(page: Any) -> None:
    for place in page.locator("[data-draw]").all():
        place.and_(page.locator("[data-drawn=yes]")).wait_for(state="attached")


def test_charts_that_are_never_scrolled_to_are_drawn_for_whoever_prints_the_page(visit: Visit) -> None:
    _wait_for_charts(visit.page)
    assert visit.page.evaluate("scrollY") == 0


@pytest.mark.parametrize("visit", THEMES, indirect=True)
def test_on_paper_nothing_lies_on_other_rows_and_charts_are_dark_on_light(visit: Visit) -> None:
    _wait_for_charts(visit.page)
    dark = visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    visit.page.emulate_media(media="print")
    position = "all => [...new Set(all.map((one) => getComputedStyle(one).position))]"
    assert visit.page.locator("thead th, caption > span").evaluate_all(position) == ["static"]
    assert not visit.page.locator(".controls, nav, th button").and_(visit.page.locator("visible=true")).count()
    inverted = "all => all.map((one) => getComputedStyle(one).filter !== 'none')"
    assert set(visit.page.locator("[data-draw]").evaluate_all(inverted)) == {dark}


def test_what_printing_opened_is_closed_again(visit: Visit) -> None:
    before = visit.page.locator("details[open]").count()
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert visit.page.locator("details:not([open])").count() == 0
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert visit.page.locator("details[open]").count() == before


def test_charts_are_drawn_again_in_the_other_theme(visit: Visit) -> None:
    visit.draw_all()
    text = visit.page.locator("[data-draw] svg text").first
    light = text.evaluate("one => getComputedStyle(one).fill")
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    theme = visit.page.get_by_role("button", name="Theme")
    theme.click()
    theme.click()
    assert theme.inner_text() == "Theme: dark"
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    expect(text).not_to_have_css("fill", light)


def test_a_table_is_sorted_by_its_buttons(visit: Visit) -> None:
    heading = visit.page.locator("#request-table thead th", has_text="E2E")
    column = heading.evaluate("one => one.cellIndex")
    read = f"[...document.querySelectorAll('#request-table tbody tr')].map(row => row.cells[{column}].textContent)"

    def numbers() -> list[float]:
        shown = [text for text in visit.page.evaluate(read) if text]
        return [float(text.replace(",", "")) for text in shown]

    before = numbers()
    assert len(before) > 100
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(before)
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert numbers() == sorted(before, reverse=True)
    assert before != sorted(before)


def test_a_table_is_filtered_by_kind_and_by_text(visit: Visit) -> None:
    rows = visit.page.locator("#request-table tbody tr")
    controls = visit.page.get_by_role("group", name="Search the requests")
    controls.get_by_role("button", name="Wrong").click()
    shown = rows.locator("visible=true")
    wrong = shown.count()
    assert 0 < wrong < rows.count()
    assert {row.get_attribute("data-kind") for row in shown.all()} == {"wrong"}
    assert controls.get_by_role("status").inner_text().startswith(f"{wrong} of ")
    first = shown.first.locator("th").inner_text()
    controls.get_by_role("searchbox").fill(first)
    assert shown.count() == 1
    controls.get_by_role("searchbox").fill("nothing has this text")
    assert shown.count() == 0


def test_details_open_and_a_link_leads_to_a_closed_one(visit: Visit) -> None:
    visit.page.locator("#request-table a[href^='#output-']").last.click()
    target = visit.page.url.partition("#")[2]
    details = visit.page.locator(f"[id='{target}']")
    # The page opens it when it is told of the new address, a moment after the click.
    expect(details).to_have_attribute("open", "")
    details.locator("summary").first.click()
    expect(details).not_to_have_attribute("open", "")


def test_a_command_is_copied(visit: Visit) -> None:
    button = visit.page.get_by_role("button", name="Copy").first
    button.click()
    expect(visit.page.locator("#said")).not_to_be_empty()
    assert button.inner_text() in ("Copied", "Copy")


def test_the_keyboard_alone_leads_through_the_page(visit: Visit) -> None:
    visit.page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert visit.page.evaluate(f"{focused}.textContent") == "Skip to the content"
    box = visit.page.locator(".skip").bounding_box()
    assert box is not None
    assert box["y"] >= 0, "the skip link is seen when it has the focus"
    visit.page.keyboard.press("Enter")
    assert visit.page.evaluate(f"{focused}.id") == "main"
    seen = set()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        seen.add(visit.page.evaluate(f"{focused}.tagName"))
        outline = visit.page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none", visit.page.evaluate(f"{focused}.outerHTML.slice(0, 200)")
    assert {"BUTTON", "INPUT", "DIV", "SUMMARY"} <= seen


CONTROLS = "button, a[href], input, select, summary, [role=region], [role=group], [role=img], figure, nav, section"
NAME = """one => {
  const said = (id) => document.getElementById(id)?.textContent || "";
  const others = (one.getAttribute("aria-labelledby") || "").split(" ").map(said).join("");
  const own = one.matches("button, a, summary") ? one.textContent : "";
  return (one.getAttribute("aria-label") || others || one.labels?.[0]?.textContent || own).trim();
}"""


def test_everything_has_a_name_that_a_screen_reader_can_say(visit: Visit) -> None:
    visit.draw_all()
    named = visit.page.locator(CONTROLS).evaluate_all(f"all => all.map((one) => [({NAME})(one), one.outerHTML])")
    assert len(named) > 50
    assert [element[:200] for name, element in named if not name] == []
    ids = visit.page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    repeated = {one for one in ids if ids.count(one) > 1}
    assert repeated == set()


def test_headings_skip_no_level_and_tables_have_captions_and_scopes(visit: Visit) -> None:
    levels = visit.page.evaluate("[...document.querySelectorAll('main :is(h1,h2,h3,h4)')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert visit.page.evaluate("[...document.querySelectorAll('table')].every(one => one.caption?.textContent.trim())")
    assert visit.page.evaluate("[...document.querySelectorAll('th')].every(one => one.scope)")
    for landmark in ("main", "banner", "contentinfo", "navigation"):
        assert visit.page.get_by_role(landmark).count() == 1
    assert visit.page.evaluate("document.documentElement.lang") == "en"


CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const opaque = (colour) => colour.length < 4 || colour[3] === 1;
  const ground = (one) => {
    const found = one ? parts(getComputedStyle(one).backgroundColor) : [255, 255, 255];
    return opaque(found) ? found : ground(one.parentElement);
  };
  const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const seen = (one) => one.checkVisibility() && !one.closest("svg, script, [aria-hidden]");
  const low = {};
  for (const one of [...document.querySelectorAll("body *")].filter((one) => hasText(one) && seen(one))) {
    const [a, b] = [light(parts(getComputedStyle(one).color)), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) low[`${one.tagName}.${one.className}`] = contrast;
  }
  return low;
}"""


@pytest.mark.parametrize("visit", THEMES, indirect=True)
def test_every_text_that_is_seen_has_contrast(visit: Visit) -> None:
    assert visit.page.evaluate(CONTRAST) == {}


@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_page_is_read(visit: Visit) -> None:
    assert visit.page.get_by_role("heading", level=1).inner_text() == "INVALID"
    assert visit.page.locator("#request-table tbody tr").count() > 100
    assert visit.page.locator("mark").count() > 0
    assert visit.page.locator("figcaption").first.inner_text() != ""
    # Nothing that only a script can do is offered.
    assert visit.page.locator("button:visible, input:visible").count() == 0


@pytest.mark.parametrize("visit", [{"reduced_motion": "reduce"}], indirect=True)
def test_nothing_moves_for_those_who_want_no_motion(visit: Visit) -> None:
    visit.draw_all()
    picture = visit.page.locator("[data-draw] svg").first
    picture.scroll_into_view_if_needed()
    picture.hover()
    assert visit.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert visit.page.evaluate("document.getAnimations().length") == 0
    moving = "all => all.filter((one) => getComputedStyle(one).transitionDuration !== '0s').length"
    assert visit.page.locator("body *").evaluate_all(moving) == 0


def test_a_script_that_got_into_the_page_does_not_run(chromium: Any, file: Path, tmp_path: Path) -> None:
    """The page's own policy, as the browser applies it."""
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(file.read_text().replace("<main ", "<script>window.harm = 1</script><main ", 1))
    page = chromium.new_page()
    page.goto(spoiled.as_uri())
    assert page.evaluate("window.harm") is None
    assert page.locator("html.scripted").count() == 1
    page.close()
