"""The command ``shrink`` on a failed run of a simulated pair, over HTTP."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shrink_pairs import Pair, Ran, bash, harness, served, write_load


@pytest.fixture(scope="module")
def healthy() -> Iterator[Pair]:
    with served() as pair:
        yield pair


@pytest.fixture(scope="module")
def damaged() -> Iterator[Pair]:
    """A pair on which some requests lose their KV, always the same ones."""
    with served("full_hit_wrong=0.12") as pair:
        yield pair


@pytest.fixture(scope="module")
def failed(damaged: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A failed run of the damaged pair."""
    return failing_run(damaged, tmp_path_factory.mktemp("failed"))


def failing_run(pair: Pair, directory: Path, *, output: int = 4, check: str = "outputs") -> Path:
    load = write_load(directory / "load.jsonl", 16, output=output)
    ran = harness(
        *("run", *pair.flags, "--dataset-path", load, "--concurrency", "8", "--verify", "all"),
        *("--plain", "--result-dir", directory / "runs"),
    )
    assert ran.code == 1, ran.out + ran.err
    assert ran.directory is not None
    assert check in invalid(ran)
    return ran.directory


def shrunk(run: Path, *flags: str, tries: int = 2) -> Ran:
    limits = ("--tries", str(tries), "--confirm", "2")
    return harness("shrink", run, "--plain", "--result-dir", run.parent, *limits, *flags)


def invalid(ran: Ran) -> set[str]:
    return {check["name"] for check in ran.result["checks"] if check["verdict"] == "invalid"}


def command_of(ran: Ran) -> list[str]:
    """The harness command that the report names."""
    lines = ran.out.splitlines()
    return shlex.split(lines[lines.index("with the harness:") + 1])[3:]


@pytest.mark.slow
def test_one_damaged_request_among_many_is_found_and_reported_in_three_forms(
    tmp_path: Path, failed: Path, damaged: Pair, healthy: Pair
) -> None:
    found = shrunk(failed)
    assert found.code == 1, found.out + found.err
    assert "attached to the run's own deployment" in found.err
    assert "fails 2 of 2" in found.out
    (request,) = found.left
    assert len(request["prompt"]) <= 17
    assert request["output_tokens"] == 1
    assert "outputs" in invalid(found)

    again = harness(*command_of(found), "--plain", "--result-dir", tmp_path)
    assert again.code == 1, again.out + again.err
    assert "outputs" in invalid(again)

    assert found.directory is not None
    rejudged = harness("check", found.directory, "--plain")
    assert rejudged.code == 1
    assert found.directory.name in rejudged.out
    for proxy in (damaged.proxy, ""):
        done = bash(found.directory / "reproduce.sh", PROXY=proxy)
        assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
        assert "request 0: DIFFERS" in done.stdout
    for proxy in (healthy.proxy, ""):
        done = bash(found.directory / "reproduce.sh", PROXY=proxy, P=healthy.prefill, D=healthy.decode)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        assert "request 0: right" in done.stdout


@pytest.mark.slow
def test_a_fault_that_needs_two_concurrent_requests_keeps_two(tmp_path: Path, healthy: Pair) -> None:
    with served("bystander_write") as pair:
        # Long enough for other requests to arrive meanwhile.
        run = failing_run(pair, tmp_path, output=40)
        found = shrunk(run, "--max-tries", "12")
        assert found.code == 1, found.out + found.err
        together = found.result["shrink"]["concurrency"]
        assert together >= 2, "a single request has no block of another one to overwrite"
        assert found.directory is not None
        script = (found.directory / "reproduce.sh").read_text()
        assert script.count(" &\n") == len(found.left)
        assert "\nwait\n" in script
        done = bash(found.directory / "reproduce.sh", P=healthy.prefill, D=healthy.decode, PROXY=healthy.proxy)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_wrong_cache_is_shrunk_although_every_answer_was_right(tmp_path: Path) -> None:
    with served("swapped_blocks=0.6") as pair:
        found = shrunk(failing_run(pair, tmp_path), "--max-tries", "10", tries=4)
        assert found.code == 1, found.out + found.err
        assert len(found.left) == 1
        assert found.directory is not None
        done = bash(found.directory / "reproduce.sh")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "request 0: right" in done.stdout, "the answer itself is right"
        assert "request 1: DIFFERS" in done.stdout, "the next prompt with the same prefix is answered wrong"


@pytest.mark.slow
def test_a_fault_that_only_shows_in_counters_is_shrunk(tmp_path: Path) -> None:
    with served("source_doubled=0.1") as pair:
        found = shrunk(failing_run(pair, tmp_path, check="token_sources"), "--max-tries", "16")
        assert found.code == 1, found.out + found.err
        assert len(found.left) == 1
        assert "token_sources" in invalid(found)
        assert found.directory is not None
        done = bash(found.directory / "reproduce.sh")
        assert "counters before" in done.stdout
        assert "external_kv_transfer" in done.stdout


@pytest.mark.slow
def test_a_healthy_deployment_does_not_fail_again_which_is_unknown(failed: Path, healthy: Pair) -> None:
    found = shrunk(failed, *healthy.flags)
    assert found.code == 3, found.out + found.err
    assert "does not fail any more" in found.out
    assert "none of 2 new runs" in found.out
    assert (failed.parent / "latest").readlink() == Path(failed.name), (
        "a shrink without a result does not become the latest run"
    )


@pytest.mark.slow
def test_servers_that_are_gone_must_be_named(tmp_path: Path, failed: Path, damaged: Pair) -> None:
    stored = tmp_path / "moved"
    shutil.copytree(failed, stored)
    facts = stored / "deployment.json"
    facts.write_text(facts.read_text().replace(damaged.decode, "http://127.0.0.1:9"))
    gone = shrunk(stored)
    assert gone.code == 2
    assert "--prefill-url" in gone.err


@pytest.mark.slow
def test_a_launched_run_is_shrunk_on_a_deployment_launched_like_it(tmp_path: Path) -> None:
    load = ("--num-prompts", "12", "--concurrency", "8", "--random-input-len", "20:60")
    flags = ("--engine", "sim", "--connector", "nixl", *load, "--plain")
    planted = {"PD_HARNESS_SIM_PLANT": "zeroed_last_block=0.2"}
    ran = harness(*flags, "--result-dir", tmp_path, environment=planted)
    assert ran.code == 1, ran.out + ran.err
    assert ran.directory is not None
    limits = ("--tries", "1", "--confirm", "1", "--max-tries", "5")
    found = harness("shrink", ran.directory, "--plain", *limits, "--result-dir", tmp_path, environment=planted)
    assert found.code == 1, found.out + found.err
    assert "launched like the run's own" in found.err
    assert command_of(found)[:4] == ["--engine", "sim", "--connector", "nixl"]
    assert len(found.left) == 1


@pytest.mark.slow
def test_limits_are_kept_and_reported(failed: Path) -> None:
    found = shrunk(failed, "--max-tries", "3")
    assert found.code == 1, found.out + found.err
    assert "limits were reached" in found.out
    assert found.directory is not None
    tries = (found.directory / "tries.jsonl").read_text().splitlines()
    assert len(tries) == 1 + 3 + 2, "the whole load, the search, the confirmation"
    assert [json.loads(line)["try"] for line in tries] == list(range(1, 7))


@pytest.mark.slow
def test_an_interruption_leaves_the_best_so_far(tmp_path: Path, failed: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "shrink", str(failed), "--plain", "--result-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "try 3:" in line:
            # Like Ctrl-C, which background jobs ignore.
            process.terminate()
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert "failed once, not confirmed" in out
    assert "shrinking was interrupted" in out


@pytest.mark.parametrize("command", ["check", "shrink"])
def test_a_directory_that_is_not_a_run_is_refused(tmp_path: Path, command: str) -> None:
    for directory in (tmp_path / "nowhere", tmp_path):
        done = harness(command, directory)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "history.jsonl" in done.err


@pytest.mark.slow
def test_a_run_that_did_not_fail_is_not_shrunk(tmp_path: Path, healthy: Pair) -> None:
    load = write_load(tmp_path / "load.jsonl", 4)
    ran = harness(*healthy.flags, "--dataset-path", load, "--plain", "--result-dir", tmp_path / "runs")
    assert ran.code in (0, 3)
    assert ran.directory is not None
    done = shrunk(ran.directory)
    assert done.code == 2
    assert "only an invalid run can be shrunk" in done.err


def test_a_bad_dataset_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    load = tmp_path / "load.jsonl"
    load.write_text('{"prompt": [1, 2]}\n{"prompt": 5}\n')
    done = harness("--dataset-path", load, "--result-dir", tmp_path / "runs")
    assert done.code == 2
    assert f"{load}, line 2: " in done.err
    assert not (tmp_path / "runs").exists()
    missing = harness("--dataset-path", tmp_path / "none.jsonl", "--result-dir", tmp_path / "runs")
    assert missing.code == 2
    assert "cannot be read" in missing.err
