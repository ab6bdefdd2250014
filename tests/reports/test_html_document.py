"""A page as one file: nothing is fetched, texts stay texts, and only the page's own scripts may run."""

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from harness.reports.charts.chart import Chart, Table
from harness.reports.html import vega_script as vega
from harness.reports.html.document import document, render
from harness.reports.html.script_data import script_data

UNPRINTABLE = "\x00\x1b\x85\u200f\u202e\u2066\ufffe"
HOSTILE = "</script><img src=x onerror=alert(1)><!--'\"&\u2028"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with a short script in Vega's place: making the real one takes a second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packed = base64.b64encode(gzip.compress(b"window.vegaEmbed = 1;")).decode()
    (tmp_path / "pd-harness").mkdir()
    (tmp_path / "pd-harness" / f"vega-{vega.version('vl-convert-python')}.gz.txt").write_text(packed)


def _page(text: str = HOSTILE) -> Elements:
    chart = Chart("one", text, text, {"data": {"values": [{"text": text}]}}, Table((text,), ((text,),)))
    body = Markup("<h1>{}</h1>").format(text) + render("one_chart.html", chart=chart)
    return Elements(document(text, body, [chart], subtitle=text, contents=[("one", text)]))


def test_hostile_texts_make_no_element() -> None:
    page = _page()
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in _page("harmless").elements]


def test_no_text_has_characters_that_turn_others_around_or_that_html_forbids() -> None:
    """Whatever a caller puts into a template: not every caller cleans a model's name or a server's version."""
    chart = Chart("one", UNPRINTABLE, UNPRINTABLE, {}, Table((UNPRINTABLE,), ((UNPRINTABLE,),)))
    body = render("one_chart.html", chart=chart)
    page = document(f"a{UNPRINTABLE} b", body, [chart], subtitle=UNPRINTABLE, contents=[(UNPRINTABLE, UNPRINTABLE)])
    assert [character for character in UNPRINTABLE if character in page] == []
    assert "<title>a\ufffd\ufffd \ufffd\ufffd\ufffd\ufffd b</title>" in page


def test_nothing_is_fetched() -> None:
    for _, attributes in _page().elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), attributes


def test_the_policy_names_exactly_the_scripts_of_the_page() -> None:
    page = _page()
    policy = next(str(a["content"]) for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    run = [text for attributes, text in page.scripts if "type" not in attributes]
    packed = next(text for attributes, text in page.scripts if attributes.get("id") == "vega")
    run.append(gzip.decompress(base64.b64decode(packed)).decode())
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert len(digests) == 2
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]


def test_a_page_without_charts_carries_no_vega() -> None:
    page = Elements(document("title", Markup("<h1>one</h1>")))
    assert [attributes for attributes, _ in page.scripts] == [{}]


def test_data_for_scripts_ends_no_script_and_has_no_number_that_json_lacks() -> None:
    text = str(script_data({"text": HOSTILE, "values": [float("nan"), float("inf"), 1.5]}))
    assert "<" not in text
    assert "\u2028" not in text
    assert '"values":[null,null,1.5]' in text


def test_vega_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def bundle(snippet: str) -> str:
        made.append(snippet)
        return "window.vegaEmbed = 2;"

    monkeypatch.setattr("vl_convert.javascript_bundle", bundle)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    first = vega.vega_script()
    assert gzip.decompress(base64.b64decode(first.packed)) == b"window.vegaEmbed = 2;"
    assert vega.vega_script() == first
    assert len(made) == 1


@pytest.mark.parametrize(
    "content",
    ["", "not base64 at all", base64.b64encode(gzip.compress(b"x" * 999, mtime=0)[:-9]).decode()],
    ids=["empty", "not base64", "cut off"],
)
def test_a_damaged_cache_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda _: "window.vegaEmbed = 3;")
    kept = next((tmp_path / "pd-harness").iterdir())
    kept.write_text(content)
    assert gzip.decompress(base64.b64decode(vega.vega_script().packed)) == b"window.vegaEmbed = 3;"
    assert kept.read_text() != content


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda _: "window.vegaEmbed = 4;")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert gzip.decompress(base64.b64decode(vega.vega_script().packed)) == b"window.vegaEmbed = 4;"
