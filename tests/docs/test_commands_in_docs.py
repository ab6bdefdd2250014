"""Each command in the README and the docs runs, or stands in a list with the reason why it does not.

What launches an engine is run on the simulated pair instead. What attaches to servers is run against a simulated pair
that ``serve`` holds. Commands that are not run are at least read by the parser of the real command line.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from doc_commands import ROOT, blocks, commands, pages

from harness.cli import main
from harness.cli.options import parse
from harness.errors import UsageError
from harness.proxy.cli import _parser as proxy_parser

FOUND = commands()
TEXTS = sorted({one.text for one in FOUND})
HARNESS = "python -m harness"
SIM = ("--engine", "sim", "--num-prompts", "24", "--verify", "sample:4")


@dataclass(frozen=True, slots=True)
class Run:
    """How a command is run."""

    more: tuple[str, ...] = ()
    """Words that are appended: the simulated pair in place of an engine, and a smaller load."""
    ends: int = 0
    """The exit code."""
    finding: str = ""
    """The kind of a finding that the run must have."""
    after: str = ""
    """The command that must have run before, in the same directory."""


_SMALL = f"{HARNESS} --engine sim --num-prompts 400 --concurrency 16"
_URLS = "--base-url http://proxy:8000 --prefill-url http://p:8100 --decode-url http://d:8200"
_LENGTHS = "--duration-sec 600 --random-input-len 20:100 --random-output-len 200"
_MODEL = "--model /path/to/the/model"
RUN = {
    _SMALL: Run(),
    f"{_SMALL} --plain": Run(("--num-prompts", "24")),
    f"{HARNESS} --engine sim": Run(("--num-prompts", "24")),
    f"{HARNESS} list": Run(),
    f"{HARNESS} --concurrency 32": Run(SIM),
    f"{HARNESS} --concurrency 512 --workers 4": Run(SIM),
    f"{HARNESS} --engine sim --junit junit.xml --csv requests.csv --prometheus run.prom --metadata build=1234": Run(
        SIM
    ),
    f"{HARNESS} check runs/latest --junit junit.xml --csv requests.csv": Run(after=f"{HARNESS} --engine sim"),
    f"{HARNESS} report runs/latest": Run(after=f"{HARNESS} --engine sim"),
    f"{HARNESS} check runs/latest": Run(after=f"{HARNESS} --engine sim"),
    f"{HARNESS} --num-prompts 300 --concurrency 16 --fault pause:server=decode-0,after=1,for=3": Run(
        ("--engine", "sim", "--verify", "sample:4")
    ),
    f"{HARNESS} --workload prefixes --workload hits --fault pause:server=decode-0,after=0,for=1": Run(
        ("--engine", "sim")
    ),
    f"PD_HARNESS_SIM_PLANT=foreign_blocks=0.05 {HARNESS} --engine sim --num-prompts 100 --verify all": Run(
        ends=1, finding="wrong_output"
    ),
    f"PD_HARNESS_SIM_PLANT=expired_read=0.1 {HARNESS} --engine sim --num-prompts 60 --concurrency 16 --verify all": Run(
        ends=1, finding="leak"
    ),
    f"PD_HARNESS_SIM_PLANT=swapped_blocks=0.05 {HARNESS} --engine sim --num-prompts 200 --concurrency 16": Run(
        ends=1, finding="cache"
    ),
    f"PD_HARNESS_SIM_PLANT=dropped_params=0.1 {HARNESS} --engine sim --num-prompts 200 --concurrency 16": Run(ends=1),
}
"""Commands that are run by themselves."""
ATTACHED = {
    f"{HARNESS} doctor {_URLS}": Run(ends=3),
    f"{HARNESS} doctor {_URLS} {_MODEL}": Run(ends=3),
    f"{HARNESS} doctor --prefill-url http://p:8100 --decode-url http://d:8200": Run(ends=3),
    f"{HARNESS} {_URLS} {_MODEL}": Run(("--num-prompts", "24", "--verify", "sample:4"), ends=3),
}
"""Commands that are run against servers that are up, in place of those that they name. The simulated pair has no files
of a model, which bytes are predicted from: they are unknown (3), and all else is judged."""

MINUTES = "takes many minutes"
INSTALLS = "installs from a package index"
ENGINE = "needs the CPU engine: the live tests run it"
FAULTS = "each kind of fault is caused in tests/faults"
NOT_RUN = {
    "python -m venv .venv && . .venv/bin/activate": INSTALLS,
    "pip install .": INSTALLS,
    "pip install . vllm nixl": INSTALLS,
    "pip install vllm nixl": INSTALLS,
    "pip install 'pd-harness[ray]'": INSTALLS,
    "make env": INSTALLS,
    "make docs": "test_pages.py builds the pages in the same way",
    "make run": ENGINE,
    "make run TORCH=...": ENGINE,
    "make test": "runs all tests, this one among them",
    'make run ARGS="--num-prompts 512"': ENGINE,
    'pytest --pd-args "--engine sim" test_transfers.py': "is run below, with the page's code as that file",
    f"{HARNESS} serve": "runs until it is ended",
    f"{HARNESS} serve --state-file pair.json": "runs until it is ended: the pair that others attach to is made by it",
    f"{HARNESS} compare runs/a runs/b": "tests/compare compares stored runs",
    f"{HARNESS} compare 'runs/old-*' 'runs/new-*' --fail-on p99_ttft:+10% --fail-on mismatch:+0": (
        "tests/compare compares stored runs"
    ),
    "pip install 'pd-harness[parquet]'": INSTALLS,
    "vllm bench sweep plot RUN_DIR --var-x request_rate --var-y p99_ttft_ms": (
        "needs vLLM: tests/live/test_vllm_plots.py reads the results"
    ),
    f"{HARNESS} shrink runs/latest": "tests/shrink runs it on loads that fail",
    f"{HARNESS} selftest": MINUTES,
    f"{HARNESS} --sweep --goodput ttft:500 tpot:50": "tests/sweep runs searches of rates",
    f"{HARNESS} --sweep 1,2,4,8 --goodput ttft:500": "tests/sweep runs lists of rates",
    f"{HARNESS} --concurrency 4096 --ray HOST:PORT --workers 16 {_URLS}": "needs a Ray cluster",
    f"{HARNESS} --concurrency 32 --faults 24 {_LENGTHS}": MINUTES,
    f"{HARNESS} --workload burst_paused_decode --deployment small_pool": FAULTS,
    f"{HARNESS} --workload lengths --workload chat": "tests/workloads runs each workload",
    f"{HARNESS} --workload '*' --all-deployments": MINUTES,
    f"{HARNESS} --workload '*' --background-load 16": MINUTES,
    f"{HARNESS} --workload used_after_reuse": "ends or misleads a real engine only",
    f"{HARNESS} --workload kept_past_lease": "ends or misleads a real engine only",
    "python -m harness.proxy --prefill URL --decode URL": "runs until it is ended",
}
"""Commands that are not run, each with the reason."""
BENCH = "python -m bench."
"""Benches take minutes; that they have these flags is what is tested."""


def unquoted(text: str) -> str:
    return text.replace("'lengths'", "lengths")


def made_from_docstrings(text: str) -> bool:
    """Whether the command is one of those on the pages of faults and of families, which are only parsed."""
    return all(one.page.startswith(("docs/faults/", "docs/workloads/")) for one in FOUND if one.text == text)


def harness_words(text: str) -> list[str] | None:
    words = [word for word in shlex.split(text) if not word.startswith("PD_HARNESS_SIM_PLANT=")]
    return words[3:] if words[:3] == HARNESS.split() else None


def test_each_command_is_known() -> None:
    known = {*RUN, *ATTACHED, *NOT_RUN}
    texts = {unquoted(text) for text in TEXTS}
    unknown = {one for one in texts - known if not one.startswith(BENCH) and not made_from_docstrings(one)}
    assert not unknown, "add it to RUN or ATTACHED, or to NOT_RUN with the reason"
    assert not known - texts, "no page has this command any more"


@pytest.mark.parametrize("text", [text for text in TEXTS if harness_words(text) is not None])
def test_the_command_line_takes_it(text: str) -> None:
    words = harness_words(text)
    assert words is not None
    if words == ["list"]:
        return
    options = parse(words)
    assert options.argv == tuple(words)


def test_the_proxy_s_command_line_takes_it() -> None:
    assert proxy_parser().parse_args(["--prefill", "http://p:1", "--decode", "http://d:2"])


@pytest.mark.parametrize("text", [text for text in TEXTS if text.startswith("make ")])
def test_make_knows_the_target(text: str) -> None:
    # Also where everything is made already.
    words = [*shlex.split(text), "--dry-run", "--always-make"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "-m " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text in TEXTS if text.startswith(BENCH)])
def test_the_bench_has_these_flags(text: str) -> None:
    words = list(takewhile(lambda word: word != "--", shlex.split(text)))
    done = subprocess.run(
        [sys.executable, "-m", words[2], "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert {word for word in words if word.startswith("--")} <= set(done.stdout.replace(",", " ").split())


def environment(text: str) -> dict[str, str]:
    plants = dict(word.split("=", 1) for word in shlex.split(text) if word.startswith("PD_HARNESS_SIM_PLANT="))
    return {**os.environ, "PYTHONPATH": str(ROOT), **plants}


def ran(text: str, how: Run, cwd: Path, words: list[str] | None = None) -> None:
    if how.after:
        ran(how.after, RUN[how.after], cwd)
    argv = words if words is not None else harness_words(text)
    assert argv is not None
    plain = () if {"list", "doctor", "report"} & set(argv) else ("--plain",)
    whole = [sys.executable, "-m", "harness", *argv, *how.more, *plain]
    done = subprocess.run(
        whole, capture_output=True, text=True, check=False, cwd=cwd, env=environment(text), timeout=300
    )
    assert done.returncode == how.ends, done.stdout + done.stderr
    if how.finding:
        result = json.loads((cwd / "runs/latest/result.json").read_text())
        assert how.finding in {one["kind"] for check in result["checks"] for one in check["findings"]}


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_it_runs(text: str, tmp_path: Path) -> None:
    ran(text, RUN[text], tmp_path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs of a simulated pair that ``serve`` holds, by those that the pages name."""
    directory = tmp_path_factory.mktemp("pair")
    words = [sys.executable, "-m", "harness", "serve", "--state-file", "pair.json", "--engine", "sim"]
    with subprocess.Popen(words, cwd=directory, env=environment(""), stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        state = json.loads(served.stdout.readline())
        yield {
            "http://proxy:8000": state["base_url"],
            "http://p:8100": state["prefill_urls"][0],
            "http://d:8200": state["decode_urls"][0],
        }
        served.send_signal(signal.SIGTERM)
        assert served.wait(timeout=60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", ATTACHED)
def test_it_runs_against_servers_that_are_up(text: str, pair: dict[str, str], tmp_path: Path) -> None:
    words = harness_words(text.removesuffix(f" {_MODEL}"))
    assert words is not None
    ran(text, ATTACHED[text], tmp_path, [pair.get(word, word) for word in words])


@pytest.mark.slow
def test_the_code_on_the_page_of_pytest_runs(tmp_path: Path) -> None:
    (code,) = blocks(pages()["docs/pytest.md"], "python")
    (tmp_path / "test_transfers.py").write_text(code)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pd-args", "--engine sim", "test_transfers.py"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment(""))
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_command_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SystemExit):
        parse(["--no-such-flag"])
    with pytest.raises(UsageError):
        parse(["--fault", "nonsense"])
    assert main(["check", "runs/no-such-run"]) == 2
