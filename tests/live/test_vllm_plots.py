"""vLLM's own plotting code reads result.json and the summary of a sweep, and draws our numbers.

Needs vLLM and what its plots are drawn with: pandas, matplotlib and seaborn. The runs are on the simulated pair.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import run_harness

pytestmark = pytest.mark.live

LOAD = ("--engine", "sim", "--num-prompts", "8", "--random-input-len", "20:60", "--random-output-len", "8", "--plain")
RATES = (20.0, 40.0, 80.0)

DRAW = """
import json, sys
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt
from vllm.benchmarks import plot
from vllm.benchmarks.sweep import plot as curves, plot_pareto as pareto
from vllm.utils.argparse_utils import FlexibleArgumentParser

directory, x, y = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
drawn = []
plt.close = lambda figure: drawn.append([line.get_xydata().tolist() for line in figure.axes[0].lines])

def draw(kind, *flags):
    parser = FlexibleArgumentParser()
    kind.add_cli_args(parser)
    return kind.from_cli_args(parser.parse_args([str(directory), *flags]))

curves.run_main(draw(curves.SweepPlotArgs, "--var-x", x, "--var-y", y, "--no-error-bars", "--fig-name", "curve"))
pareto.run_main(draw(pareto.SweepPlotParetoArgs))
one = json.loads(Path(sys.argv[4]).read_text())
keys = {"start_time": "start_times", "ttft": "ttfts", "itl": "itls", "latency": "latencies",
        "prompt_len": "input_lens", "output_tokens": "output_lens"}
requests = [dict(zip(keys, row)) for row in zip(*(one[key] for key in keys.values()))]
timeline = plot.construct_timeline_data(requests, [0.025, 0.05], ["fast", "slow", "slowest"])
plot.generate_dataset_stats_plot(requests, directory / "lengths.png")
print(json.dumps({"curve": drawn[0], "pareto": drawn[1], "timeline": timeline}))
"""
"""Calls vLLM's plots as its command line does, and prints what they drew."""


@dataclass(frozen=True)
class Drawn:
    """What vLLM made of the runs of a directory."""

    directory: Path
    curve: list[list[list[float]]]
    """The lines of the figure: points of x and y."""
    pareto: list[list[list[float]]]
    timeline: list[dict[str, Any]]
    results: list[dict[str, Any]]
    """Each run's own result.json, with its arrays."""


def drawn(directory: Path, x: str, y: str, results: list[Path]) -> Drawn:
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(directory), x, y, str(results[0])],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout.splitlines()[-1])
    return Drawn(directory, **content, results=[json.loads(path.read_text()) for path in results])


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """A sweep over three rates."""
    where = tmp_path_factory.mktemp("swept")
    flags = ("--sweep", ",".join(map(str, RATES)), "--save-detailed")
    run_harness(where, *LOAD, *flags)
    results = sorted(where.glob("2*/*/result.json"), key=lambda path: json.loads(path.read_text())["request_rate"])
    return drawn(where, "request_rate", "median_ttft_ms", results)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Runs at two concurrencies, whose results were put into one list by hand."""
    where = tmp_path_factory.mktemp("several")
    for concurrency in (2, 4):
        run_harness(where, *LOAD, "--concurrency", str(concurrency), "--save-detailed")
    results = sorted(where.glob("2*/result.json"), key=lambda path: json.loads(path.read_text())["max_concurrency"])
    (where / "summary.json").write_text(json.dumps([json.loads(path.read_text()) for path in results]))
    return drawn(where, "max_concurrency", "output_throughput", results)


def median_ttft_ms(result: dict[str, Any]) -> float:
    return 1000 * statistics.median(result["ttfts"])


def output_throughput(result: dict[str, Any]) -> float:
    return sum(result["output_lens"]) / result["duration"]


def test_a_sweeps_curve_has_the_rates_and_the_medians_of_their_requests(swept: Drawn) -> None:
    assert (swept.directory / "curve.png").stat().st_size
    (line,) = swept.curve
    assert [x for x, _ in line] == list(RATES)
    assert [y for _, y in line] == pytest.approx([median_ttft_ms(result) for result in swept.results])


def test_a_curve_of_several_runs_has_their_throughput(several: Drawn) -> None:
    assert (several.directory / "curve.png").stat().st_size
    (line,) = several.curve
    assert [x for x, _ in line] == [2, 4]
    assert [y for _, y in line] == pytest.approx([output_throughput(result) for result in several.results])


def test_the_pareto_plot_of_a_sweep_has_the_rates_that_no_other_beats(swept: Drawn) -> None:
    (frontier,) = swept.pareto
    points = [
        (output_throughput(one) / one["max_concurrent_requests"], output_throughput(one)) for one in swept.results
    ]
    assert sorted(map(tuple, frontier)) == [pytest.approx(point) for point in sorted(undominated(points))]


def test_the_pareto_plot_divides_the_throughput_by_the_concurrency(several: Drawn) -> None:
    assert (several.directory / "pareto" / "PARETO.png").stat().st_size
    (frontier,) = several.pareto
    users = {2: several.results[0], 4: several.results[1]}
    points = [(output_throughput(result) / n, output_throughput(result)) for n, result in users.items()]
    assert sorted(map(tuple, frontier)) == [pytest.approx(point) for point in sorted(undominated(points))]


def undominated(points: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    return (p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points))


def test_the_timeline_has_each_requests_first_token_and_each_token_after_it(several: Drawn) -> None:
    result = several.results[0]
    assert len(several.timeline) == sum(1 + len(gaps) for gaps in result["itls"])
    first = [segment for segment in several.timeline if segment["type"] == "TTFT"]
    assert [segment["prompt_tokens"] for segment in first] == result["input_lens"]
    assert [segment["output_tokens"] for segment in first] == result["output_lens"]
    assert [segment["duration"] for segment in first] == [f"{ttft:.3f}s" for ttft in result["ttfts"]]
    assert (several.directory / "lengths.png").stat().st_size
