"""A file that cannot be written is refused before the run; if writing fails later, the verdict is still shown."""

from pathlib import Path

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, INVALID

from harness.cli import commands, ending, main
from harness.cli.options import parse
from harness.errors import ExitCode, HarnessError
from harness.reports import make_report

SIM = ("--engine", "sim", "--plain")


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> ExitCode:
        raise AssertionError("a run was begun")

    monkeypatch.setattr(commands, "_COMMANDS", dict.fromkeys(("run", "serve", "check"), start))


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    "words",
    [
        ("run", *SIM, "--junit", "{file}/junit.xml"),
        ("run", *SIM, "--junit", "{directory}"),
        ("run", *SIM, "--noise-floor", "{file}/noise.json"),
        ("run", *SIM, "--result-dir", "{directory}", "--result-filename", "one.txt/x.json"),
        ("serve", *SIM, "--state-file", "{file}/state.json"),
        ("check", "{directory}", "--junit", "{directory}"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_started(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "one.txt"
    file.write_text("no directory")
    assert main([word.format(file=file, directory=tmp_path) for word in words]) == 2
    shown = capsys.readouterr().err
    assert "cannot be written" in shown
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_a_directory_that_does_not_exist_yet_is_made(tmp_path: Path) -> None:
    words = ["--workload", "short_prompt", "--num-warmups", "1", "--result-dir", str(tmp_path / "runs")]
    assert main([*SIM, *words, "--junit", str(tmp_path / "reports" / "new" / "junit.xml")]) == 0
    assert (tmp_path / "reports" / "new" / "junit.xml").exists()
    assert [one.name for one in (tmp_path / "reports" / "new").iterdir()] == ["junit.xml"]


def test_a_verdict_that_cannot_be_stored_is_shown_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """During a run the disk may fill up, or the directory may be removed."""
    report = make_report(DEPLOYMENT, HISTORY, INVALID)
    options = parse([*SIM, "--result-dir", str(tmp_path)]).report
    with pytest.raises(HarnessError, match=r"Its directory is gone.*The report above"):
        ending.store_report(report, options, tmp_path / "removed")
    assert capsys.readouterr().out.startswith(f"{report.verdict.upper()}: ")


def test_doctor_does_not_make_the_latest_run(tmp_path: Path) -> None:
    """`check runs/latest` after `doctor` judges the run before it."""
    assert main(["doctor", *SIM, "--num-warmups", "1", "--result-dir", str(tmp_path)]) == 0
    assert not (tmp_path / "latest").exists()
