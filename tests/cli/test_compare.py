"""The command compare: which runs a name means, what is read of them, and the exit codes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.api import compared_runs
from harness.api.compared_runs import compare_runs, read_run, run_dirs
from harness.cli.main import main
from harness.errors import UsageError
from harness.facts import Connector, Deployment, Role, Server
from harness.history import Choice, Ended, Outcome, RunEnded, RunStarted, Sent
from harness.scenario import Request, Sampling
from harness.store import RunStore

DEPLOYMENT = Deployment(
    tuple(
        Server(f"{role}-0", role, f"http://{role}", 16, version="0.32.0", connectors=(Connector.NIXL,)) for role in Role
    ),
    "http://proxy",
    "m",
)
HEALTHY = [{"name": "client_health", "verdict": "valid", "findings": []}]
SCATTER = (99.0, 100.0, 101.0, 100.5, 99.5)


def store(
    parent: Path, name: str, p99: float, *, wall: float = 0.0, answer: int = 7, ended: bool = True, **result: Any
) -> Path:
    """Store a run of two requests; ``result``: keys of result.json to replace, or to leave out if None."""
    with RunStore.create(parent, label=name, latest=False) as made:
        made.save_deployment(DEPLOYMENT)
        made.record(RunStarted(wall, ("--num-prompts", "2"), 0, "0.1.0", None, ("random_load",)))
        for number in range(2):
            who = f"load-{number}"
            request = Request(who, (1, 2, number), Sampling(max_tokens=2), cache_salt=name)
            made.record(Sent(1.0, request, "random_load", "load", 1.0))
            made.record(Ended(2.0, who, Outcome.OK, status=200, choices=(Choice((answer, number)),)))
        if ended:
            made.record(RunEnded(3.0))
        content = {
            "verdict": "valid",
            "completed": 2,
            "failed": 0,
            "num_prompts": 2,
            "p99_ttft_ms": p99,
            "checks": HEALTHY,
            "outputs": {"requests": 2, "exact": 2, "tie": 0, "mismatch": 0, "unverified": 0},
            "kv_transfer": {"decode": {"external_kv_transfer": 6}, "nixl_bytes": {"observed": 64}},
            **result,
        }
        made.save_result({key: value for key, value in content.items() if value is not None})
    return made.path


def five(parent: Path, name: str, values: Sequence[float], **more: Any) -> Path:
    for number, value in enumerate(values):
        store(parent / name, f"{name}{number}", value, wall=2.0 * number + (name == "b"), **more)
    return parent / name


def test_a_slowdown_between_two_directories_of_runs_ends_with_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = five(tmp_path, "a", SCATTER)
    new = five(tmp_path, "b", [1.1 * one for one in SCATTER[::-1]])
    output = tmp_path / "made" / "comparison.json"
    assert main(["compare", str(old), str(new), "--plain", "--output", str(output)]) == 1
    shown = capsys.readouterr().out
    assert "real, worse" in shown
    assert "2 of 2 requests have the same output" in shown
    content = json.loads(output.read_text())
    assert content["conclusion"] == "worse"
    assert len(content["run"]) == 5


def test_the_exit_codes_of_limits(tmp_path: Path) -> None:
    sides = [str(five(tmp_path, "a", SCATTER)), str(five(tmp_path, "b", [1.1 * one for one in SCATTER]))]
    codes = [main(["compare", *sides, "--fail-on", f"p99_ttft:+{limit}%"]) for limit in (5, 10, 20)]
    assert codes == [1, 3, 0]


def test_runs_are_named_by_directory_glob_list_and_flags(tmp_path: Path) -> None:
    parent = five(tmp_path, "a", SCATTER[:3])
    every = sorted(parent.iterdir())
    (parent / "latest").symlink_to(every[0].name)
    assert sorted(run_dirs([str(parent)])) == every
    assert sorted(run_dirs([f"{parent}/*a?"])) == every
    assert run_dirs([f"{every[0]},{every[2]}"]) == [every[0], every[2]]
    assert run_dirs([str(every[1]), str(every[1])]) == [every[1]]


def test_a_long_list_of_runs_is_no_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = five(tmp_path, "a", SCATTER)
    monkeypatch.chdir(parent)
    names = sorted(path.name for path in parent.iterdir())
    assert sorted(map(str, run_dirs([",".join(names * 40)]))) == names


def test_no_word_is_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As from a variable of the shell that is empty."""
    monkeypatch.chdir(five(tmp_path, "a", SCATTER))
    assert main(["compare", "", str(store(tmp_path, "b", 1.0))]) == 2
    assert "at least one run on each side" in capsys.readouterr().err


def test_a_copy_of_a_run_is_no_further_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Copies would not scatter, and any difference would look real: `latest` is a copy where links were followed."""
    runs = sorted(five(tmp_path, "a", SCATTER).iterdir())
    shutil.copytree(runs[0], tmp_path / "a" / "latest")
    assert sorted(run_dirs([str(tmp_path / "a")])) == runs
    assert main(["compare", str(runs[0]), str(tmp_path / "a" / "latest")]) == 2
    assert "is a copy of" in capsys.readouterr().err


def test_histories_of_unequal_length_are_not_read_to_find_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading each run beside each other one would take minutes for some hundred runs."""
    read = list[str]()

    def reads(one: Path, _other: Path, *, shallow: bool) -> bool:
        assert not shallow
        read.append(one.parent.name)
        return False

    monkeypatch.setattr(compared_runs.filecmp, "cmp", reads)
    for number in range(100):
        directory = tmp_path / f"{number:03}"
        directory.mkdir()
        (directory / "history.jsonl").write_bytes(b"x" * max(number, 1))
    assert len(run_dirs([str(tmp_path / "*")])) == 100
    assert read == ["000"], "the first two are of equal length"


def test_latencies_of_a_run_that_completed_nothing_are_not_compared(tmp_path: Path) -> None:
    """They are 0 in result.json, which would be an improvement."""
    old, new = five(tmp_path, "a", SCATTER), five(tmp_path, "b", (0.0,) * 5, completed=0, failed=2)
    assert {read_run(path).why_no_latencies for path in new.iterdir()} == {"completed no request"}
    found = compare_runs(old, new)
    assert found.change("p99_ttft") is None
    assert found.exit_code == 1


def test_several_flags_name_the_runs_of_each_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted(five(tmp_path, "a", SCATTER[:4]).iterdir())
    named = [word for run in runs[:2] for word in ("--baseline", str(run))]
    named += [word for run in runs[2:] for word in ("--run", str(run))]
    assert main(["compare", *named]) == 3
    assert "2 runs against 2" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["one"], ["one", "two", "three"], ["one", "two", "--run", "three"]])
def test_a_missing_side_is_explained(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    assert "two sides" in capsys.readouterr().err


def test_bad_runs_are_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = store(tmp_path, "good", 100.0)
    killed = store(tmp_path, "killed", 100.0)
    (killed / "result.json").unlink()
    damaged = store(tmp_path, "damaged", 100.0)
    (damaged / "result.json").write_text("{")
    for other, words in (
        (killed, "check --save"),
        (damaged, "cannot be read"),
        (tmp_path / "none", "names no stored run"),
        (good, "named on both sides"),
    ):
        assert main(["compare", str(good), str(other)]) == 2
        assert words in capsys.readouterr().err


def test_runs_of_another_load_are_refused_with_both_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [str(store(tmp_path, "a", 1.0)), str(store(tmp_path, "b", 1.0, num_prompts=3))]
    assert main(["compare", *sides]) == 2
    shown = capsys.readouterr().err
    assert "num_prompts: 2 in" in shown
    assert "3 in" in shown
    assert main(["compare", *sides, "--allow-different", "num_prompts"]) == 3


def test_a_bad_limit_is_refused_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path), "--fail-on", "p99"]) == 2
    assert "p99_ttft:+10%" in capsys.readouterr().err


def test_what_is_read_of_a_run(tmp_path: Path) -> None:
    run = read_run(store(tmp_path, "a", 100.0, wall=50.0))
    assert (run.began, run.verdict, run.why_no_latencies) == (50.0, "valid", "")
    assert run.values == {"p99_ttft": 100.0}
    assert run.counters == {"decode.external_kv_transfer": 3.0, "nixl_bytes": 32.0}
    assert [one.tokens.tolist() for one in run.outputs.values()] == [[7, 0], [7, 1]]
    assert run.versions["engine"] == "0.32.0"


def test_a_run_without_keys_of_later_releases_is_read(tmp_path: Path) -> None:
    run = read_run(store(tmp_path, "a", 100.0, checks=None, outputs=None, kv_transfer=None, verdict=None))
    assert (run.verdict, run.counters) == ("unknown", {})
    assert run.why_no_latencies


@pytest.mark.parametrize("verdict", ["unknown", "invalid"])
def test_latencies_are_not_compared_without_proof_that_the_client_kept_up(tmp_path: Path, verdict: str) -> None:
    run = read_run(store(tmp_path, "a", 100.0, checks=[{"name": "client_health", "verdict": verdict}]))
    assert "client_health" in run.why_no_latencies


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    run = read_run(store(tmp_path, "a", 100.0, ended=False))
    assert run.problem == run.why_no_latencies == "was interrupted"


def test_an_output_that_a_finding_calls_wrong_is_wrong(tmp_path: Path) -> None:
    finding = {"kind": "wrong_output", "request": "load-1"}
    run = read_run(
        store(tmp_path, "a", 100.0, checks=[{"name": "outputs", "verdict": "invalid", "findings": [finding]}])
    )
    assert [one.wrong for one in run.outputs.values()] == [False, True]


def test_the_same_requests_are_recognised_under_another_salt_and_other_outputs_are_seen(tmp_path: Path) -> None:
    old, new = store(tmp_path, "a", 100.0), store(tmp_path, "b", 100.0, answer=8)
    found = compare_runs(old, new)
    assert (found.outputs.shared, found.outputs.equal, found.outputs.unexplained) == (2, 0, 2)
    assert compare_runs([old], [new], fail_on=["outputs:+2"]).exit_code == 0
    with pytest.raises(UsageError):
        compare_runs(old, old)
