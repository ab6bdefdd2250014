"""The files and places that a run and ``check`` write to, besides the run's directory."""

import csv
import json
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import parquet
from run_fixtures import DEPLOYMENT, HISTORY, INVALID
from shrink_pairs import Ran, harness

from harness.cli import check, commands, ending, main, report_files
from harness.cli.options import Options, parse
from harness.errors import ExitCode, HarnessError, UsageError
from harness.reports import Report, make_report
from harness.reports.files import parquet_file

LOAD = ("--engine", "sim", "--num-prompts", "12", "--concurrency", "4", "--random-input-len", "20:60", "--plain")


def of_flags(where: Path) -> tuple[str, ...]:
    names = {"--junit": "j.xml", "--csv": "r.csv", "--parquet": "r.parquet", "--prometheus": "r.prom"}
    return tuple(word for flag, name in names.items() for word in (flag, str(where / "new" / name)))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """An invalid run on a CI system that is both GitHub Actions and Buildkite, and whose gateway is away."""
    where = tmp_path_factory.mktemp("wrong")
    environment = {
        "PD_HARNESS_SIM_PLANT": "zeroed_last_block=0.2",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(where / "summary.md"),
        "BUILDKITE": "true",
        "GATEWAY_PASSWORD": "sesame",
    }
    gateway = ("--pushgateway", "http://me:${GATEWAY_PASSWORD}@127.0.0.1:9")
    return harness(*LOAD, *of_flags(where), *gateway, "--result-dir", where, "--label", "mine", environment=environment)


@pytest.mark.slow
def test_a_run_writes_all_files_and_its_exit_code_is_that_of_its_verdict(wrong: Ran) -> None:
    assert wrong.code == 1, wrong.out + wrong.err
    assert wrong.directory is not None
    new = wrong.directory.parent / "new"
    assert sorted(one.name for one in new.iterdir()) == ["j.xml", "r.csv", "r.parquet", "r.prom"]
    rows = list(csv.DictReader((new / "r.csv").read_text().splitlines()))
    assert [row["request_id"] for row in rows] == parquet.read_table(new / "r.parquet")["request_id"].to_pylist()
    assert len(rows) == 12
    bad = [row for row in rows if row["output"] == "wrong"]
    assert len(bad) == wrong.result["outputs"]["mismatch"] > 0
    assert ET.parse(new / "j.xml").getroot().get("failures") == "1"  # noqa: S314 - our own
    samples = {
        (one.name, one.labels.get("status"), one.labels.get("verdict")): one.value
        for family in text_string_to_metric_families((new / "r.prom").read_text())
        for one in family.samples
        if "check" not in one.labels
    }
    assert samples["pd_harness_outputs", "wrong", None] == len(bad)
    assert samples["pd_harness_run_verdict", None, "invalid"] == 1


@pytest.mark.slow
def test_ci_systems_are_told_on_stderr_and_what_fails_is_a_line(wrong: Ran, tmp_path: Path) -> None:
    assert wrong.directory is not None
    # Without the path to an agent, as here, the build is not annotated.
    lines = wrong.err.splitlines()
    assert [line.partition("::")[2].partition("::")[0] for line in lines if line.startswith("::")] == [
        "error title=pd-harness mine%3A INVALID",
        "error title=invalid%3A outputs",
    ]
    assert sum(line.startswith("the build was not annotated: ") for line in lines) == 1
    assert sum(line.startswith("--pushgateway: the results were not pushed: http://<redacted>@") for line in lines) == 1
    summary = (wrong.directory.parent / "summary.md").read_text()
    assert summary.lstrip().startswith("## \u274c pd-harness mine: INVALID\n")
    stored = "".join(one.read_text() for one in wrong.directory.rglob("*") if one.is_file())
    assert "sesame" not in wrong.out + wrong.err + summary + stored
    again = harness("check", wrong.directory, "--plain", "--csv", tmp_path / "r.csv")
    assert again.out == wrong.out, "stdout is the report, with and without a CI system"


@pytest.mark.slow
def test_check_writes_the_same_files_as_the_run(wrong: Ran, tmp_path: Path) -> None:
    assert wrong.directory is not None
    again = harness("check", wrong.directory, *of_flags(tmp_path))
    assert again.code == 1
    for name in ("j.xml", "r.csv", "r.parquet", "r.prom"):
        assert (tmp_path / "new" / name).read_bytes() == (wrong.directory.parent / "new" / name).read_bytes(), name


# Before anything is started


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object) -> ExitCode:
        raise AssertionError("a run was begun")

    monkeypatch.setattr(commands, "_COMMANDS", dict.fromkeys(("run", "check"), start))


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("flag", ["--csv", "--parquet", "--prometheus"])
@pytest.mark.parametrize("command", ["run --engine sim", "check runs/latest"])
def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, flag: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no directory")
    assert main([*command.split(), flag, str(tmp_path / "file" / "x.prom")]) == 2
    assert f"{flag} {tmp_path}/file/x.prom cannot be written: " in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("command", ["run --engine sim", "check runs/latest"])
def test_parquet_without_pyarrow_is_refused_before_the_load_is_sent(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parquet_file, "find_spec", lambda _: None)
    assert main([*command.split(), "--parquet", str(tmp_path / "x.parquet")]) == 2
    assert "pip install pd-harness[parquet]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--prometheus run.txt", "names end in .prom"),
        ("--csv x --parquet ./x", "name one file twice"),
        ("--junit x.prom --prometheus x.prom", "name one file twice"),
        ("--pushgateway gateway:9091", "not a URL"),
        ("--pushgateway http://u:${NOT_SET_HERE}@g:9091", "--pushgateway: the environment variable NOT_SET_HERE"),
        ("--sweep 1,2 --csv x", "--csv of one would replace"),
        ("--workload * --all-deployments --prometheus x.prom --pushgateway http://g", "--prometheus and --pushgateway"),
        ("check runs/latest --prometheus run.txt", "names end in .prom"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert why in str(raised.value)


# When the run has ended


def stored(tmp_path: Path, *words: str) -> tuple[Report, Options]:
    return make_report(DEPLOYMENT, HISTORY, INVALID, tmp_path), parse([*LOAD, *words])


def test_a_file_that_cannot_be_written_keeps_no_other_from_being_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk may fill up, or a directory be removed, during a run."""
    gone = tmp_path / "gone"
    report, options = stored(
        tmp_path, "--junit", f"{gone}/j.xml", "--csv", f"{gone}/c", "--prometheus", f"{tmp_path}/p.prom"
    )
    with pytest.raises(HarnessError, match=r"gone/j\.xml could not be written.*gone/c could not be written.*only copy"):
        ending.store_report(report, options.report, tmp_path)
    assert (tmp_path / "p.prom").exists()
    assert json.loads((tmp_path / "result.json").read_text())["verdict"] == "invalid"
    assert capsys.readouterr().out.startswith("INVALID: ")


def test_a_file_replaces_an_older_one_in_one_step(tmp_path: Path) -> None:
    """The node exporter may read at any time, and must not see a half of it, nor a second file."""
    report, options = stored(tmp_path, "--prometheus", f"{tmp_path}/p.prom")
    (tmp_path / "p.prom").write_text("old")
    with (tmp_path / "p.prom").open() as open_before:
        report_files.store_files(report, options.report)
        assert open_before.read() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["p.prom"]
    assert (tmp_path / "p.prom").stat().st_mode & 0o444 == 0o444 & ~_mask(), "the exporter is another user"


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("more", "told"), [((), True), (("--no-ci-annotations",), False)])
def test_annotations_can_be_turned_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    *,
    told: bool,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    report, options = stored(tmp_path, *more)
    report_files.publish(report, options.report)
    assert ("::error title=" in capsys.readouterr().err) is told


async def test_check_annotates_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setattr(check, "rejudge", lambda _: make_report(DEPLOYMENT, HISTORY, INVALID, tmp_path))
    assert await check.check(parse(["check", str(tmp_path), "--plain"])) == 1
    out, err = capsys.readouterr()
    assert out.startswith("INVALID: ")
    assert err.startswith("::error title=pd-harness%3A INVALID::")


@pytest.mark.slow
def test_several_deployments_are_announced_one_by_one_and_have_a_suite_each(tmp_path: Path) -> None:
    """Each workload runs on the deployment that it is made for."""
    names = ("--workload", "short_prompt", "--workload", "two_by_two", "--all-deployments")
    where = ("--result-dir", tmp_path, "--junit", tmp_path / "j.xml")
    ran = harness("--engine", "sim", *names, *where, "--plain", environment={"GITHUB_ACTIONS": "true"})
    assert ran.code == 0, ran.out + ran.err
    commands = [line for line in ran.err.splitlines() if line.startswith("::")]
    assert [line.partition(" title=")[0] for line in commands] == ["::notice", "::notice"]
    suites = ET.parse(tmp_path / "j.xml").getroot()  # noqa: S314 - our own
    assert [(suite.get("name"), suite.get("tests")) for suite in suites] == [
        ("pd-harness multi", "1"),
        ("pd-harness two_by_two", "1"),
    ]
    runs = [one.get("value") for one in suites.iter("property") if one.get("name") == "run"]
    assert len(set(runs)) == 2
