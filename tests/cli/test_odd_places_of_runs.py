"""``check`` of a stored run that was moved, linked, damaged or written by a later version: a verdict, or what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_samples import unpack

from harness.cli.rejudged import rejudge
from harness.errors import UsageError
from harness.verdict import Verdict

SAMPLE = "20261123T0412-d46f800-planted"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An invalid run."""
    return unpack(SAMPLE, tmp_path)


def rename(run: Path) -> Path:
    return run.rename(run.parent / "elsewhere")


def link(run: Path) -> Path:
    (run.parent / "link").symlink_to(run.name)
    return run.parent / "link"


def lock(run: Path) -> Path:
    for path in (*run.iterdir(), run):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return run


def lose_the_result(run: Path) -> Path:
    (run / "result.json").unlink()
    return run


@pytest.mark.parametrize("place", [rename, link, lock, lose_the_result])
def test_a_run_has_its_verdict_wherever_it_is(run: Path, place: Callable[[Path], Path]) -> None:
    assert rejudge(place(run)).verdict is Verdict.INVALID


def test_a_last_line_that_was_cut_is_left_out_and_the_rest_is_judged(run: Path) -> None:
    history = run / "history.jsonl"
    history.write_bytes(history.read_bytes()[:-5])
    report = rejudge(run)
    assert report.verdict is Verdict.INVALID, "what was recorded before is evidence enough"
    assert report.result["interrupted"], "the end of the run is missing"


def later_kind(line: str) -> str:
    return line.replace('"kind":"phase_started"', '"kind":"dream_started"')


def later_field(line: str) -> str:
    return line.replace('{"kind":"phase_started"', '{"kind":"phase_started","mood":1')


def later_format(line: str) -> str:
    return line.replace('"format": 1', '"format": 7')


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (later_kind, "dream_started.*later version of the harness wrote it"),
        (later_field, "no field 'mood'.*later version of the harness wrote it"),
        (later_format, "journal format 7.*the version that wrote it, or a later one"),
    ],
)
def test_what_a_later_version_wrote_is_refused_and_not_misread(
    run: Path, change: Callable[[str], str], says: str
) -> None:
    history = run / "history.jsonl"
    before = history.read_text()
    history.write_text("".join(map(change, before.splitlines(keepends=True))))
    assert history.read_text() != before
    with pytest.raises(UsageError, match=says):
        rejudge(run)


def test_a_later_deployment_is_refused(run: Path) -> None:
    facts = json.loads((run / "deployment.json").read_text())
    (run / "deployment.json").write_text(json.dumps(facts | {"moods": []}))
    with pytest.raises(UsageError, match=r"no field 'moods'.*later version of the harness wrote it"):
        rejudge(run)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("deployment.json", "the run ended before its deployment was up"),
        ("history.jsonl", "Name a run's directory, which contains history.jsonl"),
    ],
)
def test_a_file_that_is_missing_is_named(run: Path, name: str, says: str) -> None:
    (run / name).unlink()
    with pytest.raises(UsageError, match=f"{name}.*{says}"):
        rejudge(run)


def test_a_packed_run_is_no_directory(run: Path) -> None:
    packed = run.parent / "run.tar.xz"
    packed.touch()
    with pytest.raises(UsageError, match="not a directory"):
        rejudge(packed)
