"""Behind another proxy than the harness's, no check assumes the behaviour of the harness's proxy."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from foreign_proxy import foreign_proxy
from model_configs import SIMULATED
from proxy_fakes import proxying
from simulated import simulated

from harness.catalogue.choice import catalogue
from harness.cli.catalogue import run_catalogue
from harness.cli.options import parse
from harness.cli.run import run
from harness.errors import ExitCode
from harness.sim.deployment import SimDeployment


@pytest.fixture
async def sim() -> AsyncIterator[SimDeployment]:
    async with simulated(lease_seconds=0.5) as deployment:
        yield deployment


@asynccontextmanager
async def own_proxy(sim: SimDeployment) -> AsyncIterator[str]:
    async with proxying(sim.prefill_urls, sim.decode_urls) as proxy:
        yield proxy.url


def words_of(sim: SimDeployment, url: str, tmp_path: Path, *more: str) -> list[str]:
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps(SIMULATED))
    attach = ("--base-url", url, "--prefill-url", sim.prefill_urls[0], "--decode-url", sim.decode_urls[0])
    return ["run", *attach, "--model", str(model), "--plain", "--result-dir", str(tmp_path / "runs"), *more]


SPECIAL = ("prompt_logprobs", "echo", "several_choices", "too_long")
SOME = ("short_prompt", "both_endpoints", "stop_strings", "min_tokens", *SPECIAL)


def chosen(names: tuple[str, ...]) -> list[str]:
    return [word for name in names for word in ("--workload", name)]


@pytest.mark.slow
async def test_workloads_that_need_the_harness_proxy_are_skipped_behind_another(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with foreign_proxy(sim.prefill_urls, sim.decode_urls) as url:
        code = await run_catalogue(parse(words_of(sim, url, tmp_path, *chosen(SOME))))
    shown = capsys.readouterr().out
    assert code is ExitCode.VALID
    for name in SPECIAL:
        assert f"skipped     {name}" in shown


@pytest.mark.slow
async def test_workloads_that_need_the_harness_proxy_run_behind_it(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with own_proxy(sim) as url:
        await run_catalogue(parse(words_of(sim, url, tmp_path, *chosen(("prompt_logprobs", "echo", "too_long")))))
    assert "3 workloads: 3 valid" in capsys.readouterr().out


@pytest.mark.slow
async def test_a_load_with_several_choices_is_unknown_behind_another_proxy(
    sim: SimDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = tmp_path / "load.jsonl"
    lines = [{"prompt": [*range(20 + n, 60 + n)], "output_tokens": 5, "n": 2, "temperature": 0.01} for n in range(3)]
    load.write_text("".join(json.dumps(line) + "\n" for line in lines))
    async with foreign_proxy(sim.prefill_urls, sim.decode_urls) as url:
        await run(parse(words_of(sim, url, tmp_path, "--dataset-path", str(load))))
    shown = capsys.readouterr().out
    assert "UNKNOWN token_sources" in shown
    assert "which is not the harness's own" in shown


def test_every_workload_that_predicts_requests_to_prefill_needs_the_harness_proxy() -> None:
    assert {entry.name for entry in catalogue() if entry.needs.own_proxy} == set(SPECIAL)
