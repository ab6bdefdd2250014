"""``report.html`` at the end of a run, and the command ``report``."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from shrink_pairs import Ran, harness

from harness.cli.options import parse
from harness.cli.page import write_page
from harness.errors import UsageError

PLANTED = {"PD_HARNESS_SIM_PLANT": "zeroed_last_block=0.2"}
LOAD = ("--engine", "sim", "--num-prompts", "12", "--concurrency", "4", "--random-input-len", "20:60", "--plain")


def _options(*more: str) -> Any:
    return parse(["run", *more]).report


def _report(text: str = "<!DOCTYPE html>") -> Any:
    return SimpleNamespace(html=lambda: text)


def test_the_page_is_written_and_its_place_is_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_page(_report(), _options(), tmp_path)
    assert (tmp_path / "report.html").read_text() == "<!DOCTYPE html>"
    assert capsys.readouterr() == ("", f"report: {tmp_path / 'report.html'}\n")


def test_no_page_if_none_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_page(_report(), _options("--no-html"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_page_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> str:
        raise RuntimeError("a template\nis broken")

    write_page(SimpleNamespace(html=failing), _options(), tmp_path)  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"warning: {tmp_path / 'report.html'} was not written: RuntimeError: a template is broken\n"


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_page(_report(), _options(), tmp_path / "gone")
    err = capsys.readouterr().err
    assert err.startswith("warning: ")
    assert err.count("\n") == 1


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run that is invalid."""
    return harness(*LOAD, "--result-dir", tmp_path_factory.mktemp("wrong"), environment=PLANTED)


@pytest.mark.slow
def test_a_run_leaves_its_page_and_names_it_last(wrong: Ran) -> None:
    assert wrong.code == 1, wrong.out + wrong.err
    assert wrong.directory is not None
    assert wrong.err.splitlines()[-1] == f"report: {wrong.directory / 'report.html'}"
    assert "INVALID" in (wrong.directory / "report.html").read_text()


@pytest.mark.slow
def test_report_writes_the_page_of_a_stored_run_again(wrong: Ran, tmp_path: Path) -> None:
    assert wrong.directory is not None
    before = (wrong.directory / "report.html").read_text()
    (wrong.directory / "report.html").unlink()
    latest = wrong.directory.parent / "latest"
    again = harness("report", latest)
    # It is no gate: it ends with 0 although the run is invalid.
    assert (again.code, again.out) == (0, f"{latest / 'report.html'}\n")
    assert (wrong.directory / "report.html").read_text() == before
    assert harness("report", latest, "--output", tmp_path / "new" / "page.html").code == 0
    assert (tmp_path / "new" / "page.html").read_text() == before


@pytest.mark.slow
def test_report_shows_what_was_recorded_of_a_killed_run(wrong: Ran, tmp_path: Path) -> None:
    assert wrong.directory is not None
    lines = (wrong.directory / "history.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "history.jsonl").write_text("".join(lines[: len(lines) // 2]) + lines[-1][:20])
    (tmp_path / "deployment.json").write_text((wrong.directory / "deployment.json").read_text())
    assert harness("report", tmp_path).code == 0
    assert "the run ended early" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_a_page_that_fails_changes_no_exit_code(tmp_path: Path) -> None:
    broken = "def broken(*_a, **_k):\n    raise OSError('broken')\n"
    patch = f"import jinja2\n\n{broken}\njinja2.Environment.get_template = broken\n"
    (tmp_path / "sitecustomize.py").write_text(patch)
    path = f"{tmp_path}:{Path(__file__).parent.parent.parent}"
    ran = harness(*LOAD, "--result-dir", tmp_path / "runs", environment=PLANTED | {"PYTHONPATH": path})
    assert ran.code == 1, ran.out + ran.err
    assert "was not written: OSError: broken" in ran.err.splitlines()[-1]


async def test_report_without_a_run_says_what_to_name(tmp_path: Path) -> None:
    from harness.cli.report import report  # noqa: PLC0415

    with pytest.raises(UsageError, match=r"history\.jsonl"):
        await report(parse(["report", str(tmp_path)]))
