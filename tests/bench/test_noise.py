"""The bench on recorded runs: what it reads, counts and exits with."""

import json
import lzma
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import accuse_all, accuse_loud, accuse_none, content, output, planted, write

from bench import noise
from bench.recorded import UnreadableError, files_of, read

DATA = Path(__file__).parent.parent / "data" / "gpu_noise"
QUIET, LOUD = output(0.25, 0.0), output(2.0, 0.0)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a clean run, and one of the same model with three damaged outputs of five."""
    write(tmp_path / "m-clean.json.xz", content([QUIET] * 3, [(QUIET, False)] * 4))
    served = [(QUIET, False), (LOUD, True), (LOUD, True), (QUIET, True), (QUIET, False)]
    write(tmp_path / "m-foreign.json.xz", content([QUIET] * 2, served, kind="foreign"))
    return tmp_path


def numbers(folder: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    """The exit code of the bench, and what it writes."""
    target = folder / "numbers"
    code = noise.main([str(folder), "--json", str(target), *flags])
    return code, json.loads(target.read_text())


# --- files ---


def test_what_a_server_did_not_report_is_nan(tmp_path: Path) -> None:
    found = read(write(tmp_path / "x", content([output(None, 0.5)], [(output(0.125), True)])))
    assert math.isnan(found.control[0].drift[0])
    assert found.control[0].drift[1] == 0.5
    assert (found.served[0].drift.tolist(), found.served[0].margin.tolist(), found.damaged) == ([0.125], [1.0], (True,))
    assert (found.model, found.kind, found.concurrency, found.clean) == ("m", "none", 4, False)


GOOD = content([QUIET], [(QUIET, False)])
BAD: dict[str, tuple[object, str]] = {
    "a list": ([GOOD], "no JSON object"),
    "no model": ({key: GOOD[key] for key in GOOD if key != "model"}, "no 'model'"),
    "no controls": ({key: GOOD[key] for key in GOOD if key != "control"}, "no 'control'"),
    "controls are a number": ({**GOOD, "control": 3}, "'control' is no list"),
    "nothing served": ({**GOOD, "served": []}, "no served output"),
    "an output is a number": ({**GOOD, "served": [1]}, "served output 0 is no JSON object"),
    "no truth": ({**GOOD, "served": [QUIET]}, "served output 0 does not say .* 'damaged'"),
    "no drift": (
        content([{"regret": [0.0], "margin": [1.0]}], [(QUIET, False)]),
        "control output 0 has no array 'drift'",
    ),
    "lengths": (content([QUIET, {**QUIET, "drift": [0.0]}], [(QUIET, False)]), "control output 1 .* different lengths"),
    "no tokens": (content([output()], [(QUIET, False)]), "control output 0 has no tokens"),
    "a word": (content([{**QUIET, "drift": ["a", 0.0]}], [(QUIET, False)]), 'the drift "a", which is no number'),
    "a truth value": (content([{**QUIET, "drift": [True, 0.0]}], [(QUIET, False)]), "the drift true"),
    "an unknown regret": (content([{**QUIET, "regret": [None, 0.0]}], [(QUIET, False)]), "the regret null"),
    "a negative regret": (content([{**QUIET, "regret": [-1.0, 0.0]}], [(QUIET, False)]), "not negative"),
    "not finite": (content([{**QUIET, "drift": [math.inf, 0.0]}], [(QUIET, False)]), "the number Infinity"),
    "too large": (content([{**QUIET, "drift": [10**400, 0.0]}], [(QUIET, False)]), "must be finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_run_is_refused_with_its_file_and_the_reason(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, why = BAD[name]
    path = write(tmp_path / "bad.json.xz", run)
    with pytest.raises(UnreadableError, match=f"bad.json.xz.*{why}"):
        read(path)
    assert noise.main([str(path)]) == 2
    assert "bad.json.xz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (b"{}", "not a whole xz file"),
        (lzma.compress(b"{}" * 9)[:-8], "not a whole xz file"),
        (lzma.compress(b"{"), "not JSON"),
        (lzma.compress(b"\xff"), "not JSON"),
        (lzma.compress(b"[" * 100_000), "not JSON"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_json_in_xz_is_refused(
    written: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json.xz"
    if written is not None:
        path.write_bytes(written)
    assert noise.main([str(path)]) == 2
    assert f"bad.json.xz: it {'' if written is None else 'is '}{why}" in capsys.readouterr().err


def test_files_of_witnesses_are_skipped_with_a_line(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "witness-m.jsonl.xz").write_bytes(b"")
    noise.main([str(runs), "--runs", "0"])
    assert "witness-m.jsonl.xz: skipped" in capsys.readouterr().out


def test_a_folder_is_its_files_in_order_and_each_once(runs: Path) -> None:
    files = [runs / "m-clean.json.xz", runs / "m-foreign.json.xz"]
    assert files_of([files[1], runs]) == ([files[1], files[0]], [])


def test_a_folder_without_recorded_runs_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert noise.main([str(tmp_path)]) == 2
    assert "no recorded run" in capsys.readouterr().err


def test_numbers_that_cannot_be_written_are_an_error_before_anything_is_judged(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert noise.main([str(runs), "--json", str(runs / "none" / "numbers")]) == 2
    assert capsys.readouterr().out == ""


# --- counts and exit codes ---


@pytest.mark.parametrize(("wrong", "named", "code"), [(accuse_none, 0, 0), (accuse_loud, 2, 0), (accuse_all, 3, 1)])
def test_damaged_and_clean_outputs_are_counted_apart(
    wrong: Callable[..., Any], named: int, code: int, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "rule_on", planted(wrong))
    status, found = numbers(runs, "--runs", "0")
    damaged = found["files"][1]
    assert (status, damaged["damaged"], damaged["damaged_named"]) == (code, 3, named)
    assert damaged["clean_accused"] == (2 if code else 0)
    # The third damaged output is as quiet as a clean one.
    assert damaged["damaged_like_clean"] == 1


def test_a_clean_output_that_is_accused_is_named_with_the_reason(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise, "rule_on", planted(lambda served: {len(served) - 1: "a reason"}))
    assert noise.main([str(runs), "--runs", "0", "--verbose"]) == 1
    printed = capsys.readouterr().out
    assert "clean output 3 is accused: a reason" in printed
    assert "clean output 4 is accused: a reason" in printed


def test_a_rule_that_judges_nothing_proves_nothing(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise, "rule_on", lambda *_: "too few controls")
    assert noise.main([str(runs), "--runs", "0"]) == 3
    assert "not judged: too few controls" in capsys.readouterr().out


def test_resampled_runs_of_which_none_is_judged_prove_nothing(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judging = planted(accuse_none)
    monkeypatch.setattr(noise, "rule_on", lambda *sides: judging(*sides) if len(sides[1]) < 100 else "too few controls")
    code, found = numbers(runs, "--runs", "20")
    assert (code, found["resampled"][0]["total"]["unjudged"]) == (3, 20)


def test_resampled_runs_that_are_accused_fail_the_bench(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule accuses only runs larger than any file."""
    monkeypatch.setattr(noise, "rule_on", planted(lambda served: {0: "planted"} if len(served) > 100 else {}))
    code, found = numbers(runs, "--runs", "20", "--jitter")
    assert code == 1
    totals = [(one["jitter"], one["total"]["alarms"], one["total"]["judged"]) for one in found["resampled"]]
    assert totals == [(0.0, 20, 20), (0.1, 20, 20)]


def test_runs_are_drawn_from_files_without_damage_unless_all_are_asked_for(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(noise, "rule_on", planted(accuse_none))
    noise.main([str(runs), "--runs", "20"])
    assert "from 4 clean outputs" in capsys.readouterr().out
    noise.main([str(runs), "--runs", "20", "--all-clean"])
    assert "from 6 clean outputs" in capsys.readouterr().out
    noise.main([str(runs / "m-foreign.json.xz"), "--runs", "20"])
    assert "m: no runs are drawn" in capsys.readouterr().out


@pytest.mark.slow
def test_the_rule_holds_on_what_two_gpus_recorded(tmp_path: Path) -> None:
    """Nobody is accused of noise, and whoever got another request's KV, or had a block zeroed, is named."""
    target = tmp_path / "numbers"
    assert noise.main([str(DATA), "--runs", "20", "--jitter", "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    files = {one["file"]: one for one in found["files"]}
    assert len(files) == 15
    assert sum(one["outputs"] - one["damaged"] for one in files.values()) == 6997
    assert [name for name, one in files.items() if one["clean_accused"] or one["unjudged_because"]] == []
    gross = {"canary-foreign-c64": 9, "smollm2-foreign-c64": 8, "canary-zero_last-c64": 6}
    assert {name: files[name]["damaged_named"] for name in gross} == gross
    assert [one["total"]["alarms"] for one in found["resampled"]] == [0, 0, 0, 0]
    assert min(one["total"]["judged"] for one in found["resampled"]) > 15
