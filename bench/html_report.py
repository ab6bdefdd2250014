"""How large the HTML report of a run is, how long writing it takes, and how soon a browser shows it.

    python -m bench.html_report [--requests 1000,10000,100000] [--wrong 8] [--output 16] [--tries 5]

The runs are made, not measured (:mod:`bench.made_run`), since only their size counts. The cache has Vega already, as
after a first run. Each page is opened by ``file:`` in headless Chromium, each time in a fresh context.

``loaded``: until the load event. ``shown``: until a first chart, which was scrolled to, is drawn, too. ``cpu``: what
the page's main thread computed until then, which tells more than the clock on a machine that others use. To be kept at
10,000 requests: 1.5 MB, and shown in less than 2 s.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.browser import browser
from bench.made_run import Settings, deployment_of, history_of
from harness.checkers import judge
from harness.reports import LoadSettings, make_report

_SHOWN = """() => new Promise((resolve) => {
  const first = document.querySelector("[data-draw]");
  first.scrollIntoView();
  const look = () => first.dataset.drawn ? resolve(performance.now()) : requestAnimationFrame(look);
  look();
})"""


@dataclass(frozen=True)
class Row:
    """One size of run: bytes, and seconds."""

    requests: int
    size: int
    first_write: float
    """Of a process that has not written a page before: it imports the libraries, too."""
    write: float
    loaded: float
    shown: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.requests:>9,} {self.size / 1e6:>8.2f} {self.first_write:>12.2f} {self.write:>7.2f} "
            f"{self.loaded:>7.2f} {self.shown:>7.2f} {self.cpu:>7.2f}"
        )


def measure(settings: Settings, tries: int, chromium: Any, folder: Path) -> Row:
    """Write the page of such a run, and open it."""
    requests = settings.requests
    deployment, history = deployment_of(settings), history_of(settings)
    report = make_report(deployment, history, judge(deployment, history), None, LoadSettings(requests))
    took = []
    for _ in range(tries):
        began = time.perf_counter()
        page = report.html()
        took.append(time.perf_counter() - began)
    file = folder / f"{requests}.html"
    file.write_text(page)
    opened = [_open(chromium, file) for _ in range(tries)]
    medians = [statistics.median(values) for values in zip(*opened, strict=True)]
    return Row(requests, file.stat().st_size, took[0], statistics.median(took[1:] or took), *medians)


def _open(chromium: Any, file: Path) -> tuple[float, float, float]:
    """Seconds until the load event, until the first chart is drawn, and of the main thread's work until then."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto(file.as_uri())
    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    shown = page.evaluate(_SHOWN)
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return loaded / 1000, shown / 1000, metrics["ThreadTime"]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", default="1000,10000,100000")
    parser.add_argument("--wrong", type=int, default=8, help="outputs that are wrong (default: %(default)s)")
    parser.add_argument("--output", type=int, default=16, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--tries", type=int, default=5)
    flags = parser.parse_args(argv)
    print(f"processes that wait for {os.cpu_count()} cores before it begins: {os.getloadavg()[0]:.1f}")
    print(
        f"{'requests':>9} {'MB':>8} {'first write':>12} {'write':>7} {'loaded':>7} {'shown':>7} {'cpu':>7}   (seconds)"
    )
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        for requests in map(int, flags.requests.split(",")):
            settings = Settings(requests, output=flags.output, wrong=flags.wrong)
            print(measure(settings, flags.tries, chromium, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
