"""A page as one file that needs no network: styles, scripts and data stand in it.

What the page says can be read without scripts; scripts draw the charts, sort and filter tables, copy commands and
choose the theme. Its Content-Security-Policy allows no connection, and no script but the page's own ones, which it
names by their hashes: a text from a server that got into the page as a script would not run. Vega usually compiles
expressions with ``eval``, which the policy forbids; the page has Vega interpret them instead (its option ``ast``).
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from harness.reports.charts.chart import Chart
from harness.reports.html.script_data import script_data
from harness.reports.html.vega_script import digest_of, vega_script
from harness.reports.text import printable


@cache
def environment() -> Environment:
    """The templates. What is put into a template is made printable and escaped, unless it is Markup."""
    loader = PackageLoader("harness.reports.html")
    # Styles and scripts are templates, too, but no text of a run is put into them.
    made = Environment(
        loader=loader,
        autoescape=select_autoescape(("html",), default_for_string=True),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["script_data"] = script_data
    return made


def _shown(value: Any) -> Any:
    """A value as a template writes it: no model name or version turns the text around it, or breaks the page."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(template: str, **values: Any) -> Markup:
    """A template of this package, filled in. Texts among ``values`` are escaped."""
    return Markup(environment().get_template(template).render(**values))  # noqa: S704 - autoescape is on


def document(
    title: str,
    body: Markup,
    charts: Sequence[Chart] = (),
    *,
    subtitle: str = "",
    contents: Sequence[tuple[str, str]] = (),
) -> str:
    """A whole page.

    ``body``: what stands in ``<main>``, beginning with an ``h1``. The places of ``charts`` in it are made by the macro
    ``figure`` of ``parts.html``. ``subtitle``: stands at the top of the page. ``contents``: id and text of each section
    that the bar at the top leads to.
    """
    script = str(environment().get_template("page.js").render())
    vega = vega_script() if charts else None
    return str(
        render(
            "document.html",
            title=title,
            body=body,
            charts=charts,
            subtitle=subtitle,
            contents=contents,
            script=Markup(script),  # noqa: S704 - the package's own file
            vega=vega,
            policy=_policy([digest_of(script), *([vega.digest] if vega else [])]),
            version=_version(),
        )
    )


def _policy(scripts: Sequence[str]) -> str:
    """Vega and the charts set styles of elements, so that styles cannot be named by hashes."""
    own = " ".join(f"'{digest}'" for digest in scripts)
    rules = ("default-src 'none'", f"script-src {own}", "style-src 'unsafe-inline'", "img-src data:")
    return "; ".join((*rules, "base-uri 'none'", "form-action 'none'"))


def _version() -> str:
    try:
        return version("pd-harness")
    except PackageNotFoundError:
        return "(not installed)"
