"""Workers on a Ray cluster of several nodes, which run on this machine."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from command_line import run_harness

import harness
from harness.cli import main
from harness.errors import HarnessError, UsageError
from harness.fleet import Workers
from harness.fleet.on_ray import RayWorker, ray_workers
from harness.fleet.remote import WorkerLost
from harness.history import ClockCompared


def test_without_ray_it_is_said_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["--engine", "sim", "--ray", "auto", "--result-dir", str(tmp_path)]) == 2
    assert "pip install 'pd-harness[ray]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_ray_is_looked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    Workers(4).require()
    with pytest.raises(UsageError, match="needs Ray"):
        Workers(4, "auto").require()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes, each with processes of its own."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - an optional extra

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=2)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
def test_a_load_from_a_ray_cluster_is_judged_like_one_from_here(cluster: Any, tmp_path: Path) -> None:
    load = ("--engine", "sim", "--plain", "--num-prompts", "24", "--num-warmups", "1", "--verify", "all")
    alone = run_harness(tmp_path / "alone", *load)
    spread = run_harness(tmp_path / "ray", *load, "--ray", cluster.address, "--workers", "4")
    assert (alone.status, spread.status) == (0, 0), spread.output + spread.errors
    for key in ("verdict", "kv_transfer", "completed", "total_input_tokens"):
        assert spread.result[key] == alone.result[key]
    assert "the clocks of 4 workers agreed" in spread.output


@pytest.mark.slow
def test_a_load_from_python_is_sent_by_a_ray_cluster(cluster: Any) -> None:
    with harness.simulate(num_warmups=1) as deployment:
        report = deployment.run(harness.RandomLoad(num_prompts=12, output_len=4), ray=cluster.address, workers=2)
    assert report.verdict is harness.Verdict.VALID
    senders = {entry.worker for entry in report.history.entries if isinstance(entry, ClockCompared)}
    assert senders == {"worker-0", "worker-1"}


@pytest.mark.slow
async def test_there_is_one_worker_on_each_node_and_a_killed_one_is_lost(cluster: Any) -> None:
    async with ray_workers(cluster.address, None) as workers:
        assert [worker.name for worker in workers] == ["worker-0", "worker-1", "worker-2"]
        with pytest.raises(HarnessError, match="no part has begun"):
            await workers[0].call("fetch")
        doomed = cast("RayWorker", workers[1])
        await doomed.close()
        with pytest.raises(WorkerLost, match="no longer running in the Ray cluster"):
            await doomed.call("hello")
        assert await workers[2].call("hello")


@pytest.mark.slow
async def test_a_cluster_that_does_not_answer_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="No Ray cluster can be used"):
        async with ray_workers("127.0.0.1:1", 2):
            raise AssertionError
