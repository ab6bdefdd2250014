"""The Python API: the code in the README, the example, reports, stored runs, errors."""

import asyncio
import gc
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from run_fixtures import DEPLOYMENT

import harness
from harness.api import AsyncRunningDeployment
from harness.api.loop import LoopThread
from harness.api.words import load_words, target_words, workers_words
from harness.cli import main
from harness.cli.options import parse
from harness.clock import MonotonicClock
from harness.deploy.nursery import Nursery
from harness.deploy.target import Attachment, Target
from harness.facts import Connector, Role
from harness.fleet import Workers
from harness.history import ClockCompared, History, Noted
from harness.memo import forget
from harness.observer import complete

ROOT = Path(__file__).parents[2]
FEW = harness.RandomLoad(num_prompts=12, concurrency=4, output_len=6, seed=3)


def python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_runs() -> None:
    shown = python("examples/python_api.py")
    assert "The load is valid: " in shown
    assert "The workloads are valid:" in shown
    assert "\n  valid cold_decode" in shown


@pytest.mark.slow
def test_the_code_in_the_readme_runs() -> None:
    section = (ROOT / "README.md").read_text().partition("## Python API")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    first, *checks = python("-c", code).splitlines()
    assert re.fullmatch(r"valid 0\.\d+ valid", first)
    assert any(line.startswith("valid outputs 32 of 32 outputs") for line in checks)


@pytest.mark.parametrize("module", ["harness", "harness.scenario", "harness.verdict"])
def test_importing_a_module_does_not_import_the_whole_harness(module: str) -> None:
    heavy = {"aiohttp", "numpy", "rich", "prometheus_client", "harness.run", "harness.deploy", "harness.cli"}
    assert python("-c", f"import sys, {module}; print(sorted(set(sys.modules) & {heavy}))").strip() == "[]"


def test_exactly_the_offered_names_exist() -> None:
    assert all(hasattr(harness, name) for name in harness.__all__)
    assert set(harness.__all__) == set(harness.api.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = harness.nonsense


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> harness.Report:
    directory = tmp_path_factory.mktemp("runs")
    with harness.simulate(connector="nixl", num_warmups=1) as deployment:
        return deployment.run(FEW, verify="sample:5", result_dir=directory, label="mine")


def test_a_report_has_the_verdict_its_checks_and_latencies_in_seconds(stored: harness.Report) -> None:
    assert (stored.verdict, stored.exit_code, stored.findings) == (harness.Verdict.VALID, 0, ())
    assert {"outputs", "completion", "token_sources"} <= {check.name for check in stored.checks}
    assert stored.outputs.exact + stored.outputs.tie == 5
    times = stored.latencies
    assert (times.ttft.shape, times.tpot.shape, times.e2e.shape) == ((12,), (12,), (12,))
    answers = np.array([len(o.ended.choices[0].token_ids) for o in stored.history.operations() if o.request.of_load])
    assert times.itl.shape == (int((answers - 1).sum()),)
    assert np.all(times.e2e >= times.ttft)
    assert times.ttft.mean() * 1000 == pytest.approx(stored.result["mean_ttft_ms"])
    assert str(stored).startswith("VALID: ")


def test_a_stored_run_is_judged_again_by_the_command_line(
    stored: harness.Report, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stored.path is not None
    assert "mine-s3" in stored.path.name
    assert main(["check", str(stored.path), "--plain"]) == 0
    assert capsys.readouterr().out == f"{stored}\n"
    result = json.loads((stored.path / "result.json").read_text())
    assert (result["verdict"], result["label"], result["num_prompts"]) == ("valid", "mine", 12)
    again = parse(result["argv"])
    assert (again.load, again.target.engine, again.target.connectors) == (FEW, "sim", (Connector.NIXL,))


@pytest.mark.slow
def test_workloads_that_need_another_deployment_are_skipped_with_the_reason() -> None:
    with harness.simulate(num_warmups=1) as deployment:
        assert [server.role for server in deployment.facts.servers] == [Role.PREFILL, Role.DECODE]
        report = deployment.run_workloads("short_prompt", "two_by_two", background_load=2)
        nothing = deployment.run_workloads("two_by_two")
        with pytest.raises(harness.UsageError, match="python -m harness list"):
            deployment.run_workloads("no_such_thing")
    assert [(row.workload, row.word) for row in report.rows] == [("short_prompt", "valid"), ("two_by_two", "skipped")]
    assert "needs 2 prefill servers" in report.rows[1].skipped
    assert (report.verdict, nothing.verdict) == (harness.Verdict.VALID, harness.Verdict.UNKNOWN)


@pytest.mark.slow
async def test_a_run_with_await() -> None:
    phases = []

    class Watcher(harness.SilentObserver):
        def phase(self, scenario: str, phase: str, total: int) -> None:
            phases.append((scenario, phase, total))

    async with harness.simulate(num_warmups=1, observer=Watcher()) as deployment:
        report = await deployment.run(FEW)
    assert report.verdict is harness.Verdict.VALID
    assert ("random_load", "load", 12) in phases


def test_an_observer_that_knows_only_some_events_is_not_asked_for_the_others() -> None:
    class Old:
        """Written before there were other events."""

        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    old = Old()
    whole = complete(old)  # type: ignore[arg-type]
    whole.note("hello")
    whole.recorded(Noted(1.0, "x"))
    whole.advance(1, 2, 0)
    assert old.notes == ["hello"]
    assert complete(whole) is whole
    assert complete(harness.SilentObserver()) is not None


def test_a_deployment_may_be_kept_open_as_in_a_notebook(tmp_path: Path) -> None:
    deployment = harness.simulate(num_warmups=1, log_dir=tmp_path).open()
    try:
        load = tmp_path / "load.jsonl"
        load.write_text('{"prompt": [300, 301, 302], "output_tokens": 4}\n')
        report = deployment.run(harness.DatasetLoad(path=load))
    finally:
        deployment.close()
        deployment.close()
    assert report.outputs.requests == 1
    assert [path.name for path in (tmp_path / "logs").iterdir()]


@pytest.mark.slow
def test_a_run_whose_report_is_dropped_takes_no_memory() -> None:
    with harness.simulate() as deployment:
        forget()
        before = _histories()
        report = deployment.run(FEW)
        assert _histories() > before
        del report
        assert _histories() == before


def _histories() -> int:
    gc.collect()
    return sum(isinstance(one, History) for one in gc.get_objects())


@pytest.mark.slow
def test_a_running_deployment_is_attached_to() -> None:
    with harness.simulate(num_warmups=1) as running:
        prefill, decode = running.facts.servers
        with harness.attach(prefill_urls=prefill.url, decode_urls=[decode.url], num_warmups=1) as deployment:
            assert (deployment.facts.launched, deployment.facts.own_proxy) == (False, True)
            assert deployment.run(FEW).latencies.e2e.size == 12


def judged(report: harness.Report) -> dict[str, object]:
    """What a run concluded, without what noise and time decide."""
    counts = {key: report.result[key] for key in ("completed", "failed", "total_input_tokens", "kv_transfer")}
    return {"checks": {check.name: check.verdict for check in report.checks}, "verdict": report.verdict, **counts}


def senders(report: harness.Report) -> set[str]:
    return {entry.worker for entry in report.history.entries if isinstance(entry, ClockCompared)}


@pytest.mark.slow
def test_a_load_is_sent_by_workers_and_judged_like_one_from_here(tmp_path: Path) -> None:
    with harness.simulate(connector="nixl", num_warmups=1) as deployment:
        alone = deployment.run(FEW, verify="all")
        spread = deployment.run(FEW, verify="all", workers=2, result_dir=tmp_path)
        catalogue = deployment.run_workloads("many_identical", workers=2)
    assert judged(spread) == judged(alone)
    assert (senders(alone), senders(spread)) == (set(), {"worker-0", "worker-1"})
    assert (catalogue.verdict, senders(catalogue)) == (harness.Verdict.VALID, {"worker-0", "worker-1"})
    assert spread.path is not None
    assert {path.name for path in (spread.path / "logs").iterdir()} == {"worker-0.log", "worker-1.log"}
    assert parse(spread.result["argv"]).workers == Workers(2)


def test_workers_that_cannot_be_had_are_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nursery = Nursery(tmp_path, MonotonicClock(), 1.0, harness.SilentObserver())
    deployment = AsyncRunningDeployment(DEPLOYMENT, Target(engine="sim"), harness.SilentObserver(), tuple, nursery)
    monkeypatch.setitem(sys.modules, "ray", None)
    for run in (deployment.run, deployment.run_workloads):
        with pytest.raises(harness.UsageError, match="workers=0: give the number"):
            asyncio.run(run(workers=0))
        with pytest.raises(harness.UsageError, match=r"pip install 'pd-harness\[ray\]'"):
            asyncio.run(run(ray="auto"))


def test_workers_are_the_flags_of_the_command_line() -> None:
    for workers in (Workers(), Workers(3), Workers(None, "auto"), Workers(4, "head:6379")):
        assert parse(tuple(workers_words(workers))).workers == workers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prefill_urls": [], "decode_urls": "http://d:1"}, "at least one URL in prefill_urls"),
        ({"prefill_urls": "p:1", "decode_urls": "http://d:1"}, "prefill_urls p:1: not a URL"),
        ({"prefill_urls": "http://p:1", "decode_urls": "http://d:1", "base_url": ""}, "base_url '': not a URL"),
    ],
)
def test_wrong_urls_are_refused_before_anything_is_sent(arguments: dict[str, str], words: str) -> None:
    with pytest.raises(harness.UsageError, match=re.escape(words)):
        harness.attach(**arguments)


def test_servers_that_do_not_answer_and_unknown_names_are_usage_errors(tmp_path: Path) -> None:
    with (
        pytest.raises(harness.UsageError),
        harness.attach(prefill_urls="http://127.0.0.1:9", decode_urls="http://127.0.0.1:9"),
    ):
        pass
    with pytest.raises(harness.UsageError, match="Give one of 'nixl', 'offloading', 'multi'"):
        harness.simulate(connector="mooncake")
    with pytest.raises(harness.UsageError, match="give one of usual, none, student, mixture, quantised"):
        harness.simulate(sim_noise="pink")
    with harness.simulate(num_warmups=1) as deployment:
        with pytest.raises(harness.UsageError, match="cannot be read"):
            deployment.run(harness.DatasetLoad(path=tmp_path / "none.jsonl"))
        with pytest.raises(harness.UsageError, match="it must be all, sample:N"):
            deployment.run(FEW, verify="some")


def test_ctrl_c_cancels_and_waits_for_the_cleanup() -> None:
    cleaned = []

    async def work() -> None:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    loop = LoopThread()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.call(work())
    finally:
        loop.close()
    assert cleaned == [True]


@pytest.mark.parametrize(
    "target",
    [
        Target(),
        Target(engine="sim", prefill=2, decode=3, connectors=(Connector.OFFLOADING, Connector.NIXL), num_warmups=0),
        Target(engine="sim", sim_noise="quantised"),
        Target(
            attachment=Attachment(("http://p:1", "http://p:2"), ("http://d:1",), "http://proxy:1"),
            model="a/b",
            served_model_name="b",
            kv_cache_dtype="fp8",
            headers={"X-Key": "abc=d"},
        ),
        Target(
            model="a/b",
            block_size=64,
            num_gpu_blocks=100,
            offload_bytes=5,
            nixl_config={"kv_lease_duration": 5},
            kv_load_failure_policy="recompute",
            engine_args=("--max-num-seqs 4",),
            role_args={Role.PREFILL: ("--a",), Role.DECODE: ("--b 1", "--c")},
            engine_pythons={Role.PREFILL: "p", Role.DECODE: "d"},
            device="cpu",
            ready_timeout=5.0,
        ),
    ],
    ids=["default", "simulated", "noisy", "attached", "launched"],
)
@pytest.mark.parametrize(
    "load",
    [FEW, harness.RandomLoad(input_len=(4, 9), ignore_eos=True), harness.DatasetLoad(path=Path("x"), output_len=4)],
    ids=["few", "random", "dataset"],
)
def test_the_stored_command_line_is_equivalent(
    target: Target, load: "harness.RandomLoad | harness.DatasetLoad"
) -> None:
    words: Sequence[str] = ("run", *target_words(target), *load_words(load))
    options = parse(words)
    assert options.load == load
    assert options.target == target
