"""A plan is read whole before a night begins, and each mistake in it is said."""

from pathlib import Path

import pytest

from bench.nightly.jobs import READY, Job, usual
from bench.nightly.options import parse
from bench.nightly.plan import read_plan
from harness.cli.options import parse as parse_harness
from harness.errors import UsageError


def plan(tmp_path: Path, text: str) -> tuple[Job, ...]:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    return read_plan(file)


def test_a_plan_has_ready_jobs_and_jobs_of_its_own(tmp_path: Path) -> None:
    text = """
    [[job]]
    name = "steady"
    repeat = 7

    [[job]]
    name = "paused"
    flags = ["--num-prompts", "20", "--fault", "pause:server=decode-0,after=1,for=2"]
    own_deployment = true
    timeout_sec = 90
    """
    steady, paused = plan(tmp_path, text)
    assert (steady.flags, steady.repeat, steady.measured) == (READY["steady"].flags, 7, True)
    assert (paused.repeat, paused.timeout, paused.measured, paused.own_deployment) == (1, 90, False, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no job"),
        ("[[job", "is not TOML"),
        ("job = 3", "it has no job"),
        ("[night]\nx = 1\n[[job]]\nname = 'steady'", "nothing called night"),
        ("[[job]]\nname = 'steady'\ntimes = 3", "has no times"),
        ("[[job]]\nname = 'steady'\nrepeat = 'x'", "repeat = 'x' is no int"),
        ("[[job]]\nname = 'steady'\nrepeat = true", "repeat = True is no int"),
        ("[[job]]\nname = 'steady'\nrepeat = 0", "at least 1"),
        ("[[job]]\nname = 'steady'\ntimeout_sec = -1", "more than 0"),
        ("[[job]]\nname = 'steady'\ntimeout_sec = nan", "more than 0"),
        ("[[job]]\nname = '../x'\nflags = []", "lower-case letters"),
        ("[[job]]\nname = 'mine'", "no ready job has this name"),
        ("[[job]]\nname = 'mine'\nflags = [3]", "a list of texts"),
        ("[[job]]\nname = 'mine'\nflags = ['--seed', '3']", "--seed is given by the nightly job"),
        ("[[job]]\nname = 'mine'\nflags = ['--no-such-flag']", "--no-such-flag"),
        ("[[job]]\nname = 'mine'\nflags = ['--fault', 'pause:server=decode-0,for=x']", "give a number of seconds"),
        ("[[job]]\nname = 'steady'\n[[job]]\nname = 'steady'", "two jobs are called steady"),
    ],
)
def test_a_mistake_in_a_plan_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        plan(tmp_path, text)
    assert says in str(error.value)
    assert str(error.value).startswith("--plan")


def test_a_plan_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(tmp_path / "no.toml")


@pytest.mark.parametrize("job", READY.values(), ids=lambda job: job.name)
def test_the_harness_reads_the_flags_of_every_ready_job(job: Job) -> None:
    assert parse_harness(["run", *job.flags]).command == "run"


def test_an_attached_night_runs_what_needs_no_launch() -> None:
    """Faults on servers need processes of the harness."""
    every, attached = usual(attached=False), usual(attached=True)
    assert {job.name for job in every} == set(READY)
    assert {job.name for job in attached} == {"steady", "burst", "short_prompts", "long_prompts"}
    options = parse(["--result-dir", "x", "--", "--prefill-url", "http://p", "--decode-url", "http://d"])
    assert options.attached
    assert options.jobs == attached


@pytest.mark.parametrize("limit", ["p99_ttft:+10%", "outputs:+0", "mismatch:+0", "decode.local_compute:+1%"])
def test_limits_of_metrics_and_of_counters_are_read(limit: str) -> None:
    assert [one.text for one in parse(["--result-dir", "x", "--fail-on", limit]).fail_on] == [limit]


def test_repeat_is_about_loads_alone() -> None:
    jobs = parse(["--result-dir", "x", "--repeat", "9"]).jobs
    assert {job.name: job.repeat for job in jobs if job.repeat == 9}.keys() == {
        "steady",
        "burst",
        "short_prompts",
        "long_prompts",
    }


@pytest.mark.parametrize("words", [["--own-deployments"], ["--", "--engine", "sim"], ["--", "--engine=sim"]])
def test_each_run_can_have_a_deployment_of_its_own(words: list[str]) -> None:
    """Simulated servers always are: a run that attaches to them could not predict bytes."""
    assert all(job.own_deployment for job in parse(["--result-dir", "x", *words]).jobs)


def test_the_runs_of_a_night_share_its_deployment() -> None:
    jobs = parse(["--result-dir", "x", "--jobs", "steady", "--", "--engine", "vllm"]).jobs
    assert not any(job.own_deployment for job in jobs)
