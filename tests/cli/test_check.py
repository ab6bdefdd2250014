"""A stored run judged again: the same report and exit code, and nothing overwritten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from shrink_pairs import Ran, harness

from harness.cli.options import parse
from harness.cli.rejudged import rejudge
from harness.cli.target_options import target_words
from harness.errors import UsageError
from harness.loads import DatasetLoad, RandomLoad
from harness.verdict import Verdict

PLANTED = {"PD_HARNESS_SIM_PLANT": "zeroed_last_block=0.2"}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run that is invalid."""
    load = ("--num-prompts", "12", "--concurrency", "4", "--random-input-len", "20:60", "--label", "mine")
    where = tmp_path_factory.mktemp("wrong")
    return harness("--engine", "sim", *load, "--plain", "--result-dir", where, environment=PLANTED)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run of three workloads, one of which needs another deployment."""
    names = ("--workload", "short_prompt", "--workload", "two_by_two", "--workload", "multi_block")
    return harness("--engine", "sim", *names, "--plain", "--result-dir", tmp_path_factory.mktemp("several"))


def copied(ran: Ran, to: Path, change: Callable[[list[str]], list[str]] = list) -> Path:
    assert ran.directory is not None, ran.out + ran.err
    shutil.copytree(ran.directory, to)
    history = to / "history.jsonl"
    history.write_text("".join(change(history.read_text().splitlines(keepends=True))))
    return to


@pytest.mark.slow
def test_check_gives_the_same_report_and_exit_code_as_the_run(wrong: Ran) -> None:
    assert wrong.code == 1, wrong.out + wrong.err
    assert wrong.directory is not None
    before = {path: path.read_bytes() for path in wrong.directory.rglob("*") if path.is_file()}
    again = harness("check", wrong.directory, "--plain")
    assert (again.code, again.out) == (1, wrong.out)
    assert {path: path.read_bytes() for path in wrong.directory.rglob("*") if path.is_file()} == before
    latest = harness("check", wrong.directory.parent / "latest", "--plain")
    assert latest.out == wrong.out


@pytest.mark.slow
def test_save_writes_the_same_result_as_the_run(wrong: Ran, tmp_path: Path) -> None:
    stored = copied(wrong, tmp_path / "run")
    (stored / "result.json").write_text("{}")
    junit = tmp_path / "junit.xml"
    harness("check", stored, "--save", "--junit", junit)
    assert json.loads((stored / "result.json").read_text()) == wrong.result
    assert "outputs" in junit.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True])
def test_the_recorded_part_of_a_killed_run_is_judged(several: Ran, tmp_path: Path, *, torn: bool) -> None:
    def half(lines: list[str]) -> list[str]:
        place = next(n for n, line in enumerate(lines) if '"multi_block"' in line and '"phase_started"' in line)
        return [*lines[:place], lines[place][:20]] if torn else lines[:place]

    stored = copied(several, tmp_path / "run", half)
    (stored / "result.json").unlink()
    run = rejudge(stored)
    assert run.verdict is Verdict.UNKNOWN
    assert [row.word for row in run.rows] == ["unknown", "unknown", "skipped"], "no workload of a killed run is valid"
    assert any("ended before this workload began" in reason for row in run.rows for reason in row.reasons)
    assert harness("check", stored).code == 3


@pytest.mark.slow
def test_check_shows_the_table_of_a_catalogue_run(several: Ran, tmp_path: Path) -> None:
    assert several.code == 0, several.out + several.err
    stored = copied(several, tmp_path / "run")
    again = harness("check", stored, "--plain", "--save")
    assert again.code == 0

    def table(out: str) -> list[str]:
        lines = [line for line in out.splitlines() if line.startswith(("valid   ", "skipped", "3 workloads"))]
        return [line.partition(", on ")[0] for line in lines]

    assert table(again.out) == table(several.out)
    assert len(table(again.out)) == 4
    assert json.loads((stored / "result.json").read_text())["workloads"] == several.result["workloads"]


def header(lines: list[str], **fields: object) -> list[str]:
    return [json.dumps({**json.loads(lines[0]), **fields}) + "\n", *lines[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda lines: header(lines, format=99), "journal format 99"),
        (lambda lines: [lines[0]], "has no run_started entry"),
        (lambda lines: [*lines[:3], "{}\n", *lines[3:]], "line 4"),
        (lambda _: [], "has no entry"),
    ],
)
def test_a_damaged_history_is_refused(
    wrong: Ran, tmp_path: Path, change: Callable[[list[str]], list[str]], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        rejudge(copied(wrong, tmp_path / "run", change))


@pytest.mark.slow
def test_a_run_that_ended_before_its_deployment_was_up_is_refused(wrong: Ran, tmp_path: Path) -> None:
    stored = copied(wrong, tmp_path / "run")
    (stored / "deployment.json").unlink()
    with pytest.raises(UsageError, match="before its deployment was up"):
        rejudge(stored)


@pytest.mark.slow
def test_a_run_with_a_command_line_of_another_version_is_judged(wrong: Ran, tmp_path: Path) -> None:
    def from_the_future(lines: list[str]) -> list[str]:
        return [line.replace('"--label"', '"--aura"') for line in lines]

    assert rejudge(copied(wrong, tmp_path / "run", from_the_future)).verdict is Verdict.INVALID


def test_the_part_of_a_command_line_that_names_a_deployment() -> None:
    words = ("run", "--label", "sim", "--engine", "sim", "--num-prompts=5", "--header", "A=b", "--prefill-url=http://p")
    assert target_words(words) == ("--engine", "sim", "--header", "A=b", "--prefill-url=http://p")
    assert target_words(("shrink", "runs/1", "--tries", "2")) == ()


@pytest.mark.parametrize(
    "argv",
    [
        ["--dataset-name", "custom"],
        ["--dataset-name", "random", "--dataset-path", "x.jsonl"],
        ["--dataset-path", "x.jsonl", "--workload", "*"],
    ],
)
def test_flags_of_a_dataset_that_contradict_each_other_are_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(argv)


def test_flags_of_a_dataset() -> None:
    dataset = parse(["--dataset-path", "x.jsonl", "--num-prompts", "3", "--custom-output-len", "7"]).load
    assert isinstance(dataset, DatasetLoad)
    assert (str(dataset.path), dataset.num_prompts, dataset.output_len) == ("x.jsonl", 3, 7)
    assert isinstance(parse([]).load, RandomLoad)
    assert parse([]).load.num_prompts == 128
