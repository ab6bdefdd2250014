"""The files in examples/nightly are accepted by their own linters, and their commands by our own parser."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.nightly.options import Options, parse
from bench.nightly.plan import read_plan

HERE = Path(__file__).parents[2] / "examples" / "nightly"
YAML = ("github-workflow.yml", "buildkite.yml", "kubernetes-cronjob.yaml")
UNITS = ("pd-harness-nightly.service", "pd-harness-nightly.timer")
RULES = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"


def text(name: str) -> str:
    return (HERE / name).read_text()


def content(name: str) -> Any:
    return yaml.safe_load(text(name))


def accepted(*command: str) -> bool:
    """Whether a linter, run as a module of this Python, accepts."""
    ended = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    # Whoever cannot run must not look like somebody who refuses.
    assert ended.returncode in (0, 1), ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode == 0


def schema_accepts(schema: str, file: Path) -> bool:
    return accepted("check_jsonschema", "--builtin-schema", schema, str(file))


def kubernetes_accepts(file: Path) -> bool:
    return accepted("kubernetes_validate", "--strict", str(file))


def yamllint_accepts(file: Path) -> bool:
    return accepted("yamllint", "--strict", "-d", RULES, str(file))


def systemd_accepts(directory: Path) -> bool:
    """The units as they would be installed, with the checkout at another place."""
    command = ["systemd-analyze", "verify", *(str(directory / name) for name in UNITS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    # It warns of lines that it ignores, and ends with 0.
    said = [line for line in ended.stderr.splitlines() if "pd-harness" in line]
    return ended.returncode == 0 and not said


def installed(directory: Path, changes: Mapping[str, str] | None = None) -> Path:
    """Copies of the units, whose checkout exists."""
    python = directory / "checkout" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    for name in UNITS:
        changed = text(name).replace("/opt/pd-harness", str(directory / "checkout"))
        for old, new in (changes or {}).items():
            changed = changed.replace(old, new)
        (directory / name).write_text(changed)
    return directory


def broken(tmp_path: Path, name: str, old: str, new: str) -> Path:
    assert old in text(name)
    copy = tmp_path / name
    copy.write_text(text(name).replace(old, new))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", YAML)
def test_yamllint_accepts(name: str, tmp_path: Path) -> None:
    assert yamllint_accepts(HERE / name)
    assert not yamllint_accepts(broken(tmp_path, name, "\n", " \n"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accepts", "name", "old", "new"),
    [
        (lambda file: schema_accepts("vendor.github-workflows", file), "github-workflow.yml", "runs-on:", "run-on:"),
        (lambda file: schema_accepts("vendor.github-workflows", file), "github-workflow.yml", "cron:", "at:"),
        (lambda file: schema_accepts("vendor.buildkite", file), "buildkite.yml", "concurrency: 1", "concurrency: one"),
        (kubernetes_accepts, "kubernetes-cronjob.yaml", "concurrencyPolicy:", "concurrency:"),
        (kubernetes_accepts, "kubernetes-cronjob.yaml", "runAsUser: 10001", "runAsUser: nobody"),
    ],
)
def test_a_linter_accepts_the_file_and_refuses_a_broken_one(
    accepts: Callable[[Path], bool], name: str, old: str, new: str, tmp_path: Path
) -> None:
    assert accepts(HERE / name)
    assert not accepts(broken(tmp_path, name, old, new))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert systemd_accepts(installed(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("OnCalendar=*-*-* 02:17:00", "OnCalendar=every night"),
        ("KillMode=mixed", "KillMode=gently"),
        ("StateDirectory=", "StateDir="),
        ("/.venv/bin/python", "/.venv/bin/no-python"),
    ],
)
def test_systemd_refuses_broken_units(tmp_path: Path, old: str, new: str) -> None:
    assert any(old in text(name) for name in UNITS)
    assert not systemd_accepts(installed(tmp_path, {old: new}))


def words_of(command: str) -> list[str]:
    """What the nightly job is given in a line for a shell."""
    words = shlex.split(command)
    after = words[words.index("bench.nightly") + 1 :]
    return after[: after.index("&&")] if "&&" in after else after


def of_github() -> Sequence[list[str]]:
    steps = content("github-workflow.yml")["jobs"]["nightly"]["steps"]
    return [words_of(step["run"]) for step in steps if "bench.nightly" in step.get("run", "")]


def of_buildkite() -> Sequence[list[str]]:
    commands = content("buildkite.yml")["steps"][0]["command"]
    return [words_of(command.replace("$$", "$")) for command in commands if "bench.nightly" in command]


def of_systemd() -> Sequence[list[str]]:
    lines = [line for line in text(UNITS[0]).splitlines() if line.startswith("ExecStart=")]
    return [words_of(line.replace("%%", "%").replace("%S", "/var/lib")) for line in lines]


def of_kubernetes() -> Sequence[list[str]]:
    documents = list(yaml.safe_load_all(text("kubernetes-cronjob.yaml")))
    (container,) = documents[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][1:] == ["-m", "bench.nightly"]
    return [[word.replace("/plan/plan.toml", str(HERE / "attached.toml")) for word in container["args"]]]


@pytest.mark.parametrize("commands", [of_github, of_buildkite, of_systemd, of_kubernetes])
def test_our_parser_reads_the_commands(commands: Callable[[], Sequence[list[str]]]) -> None:
    (words,) = commands()
    options: Options = parse(words)
    assert options.jobs
    assert options.keep
    assert options.fail_on[0].metric == "p99_ttft"
    assert options.fail_on[0].amount == pytest.approx(0.15)
    # With fewer repeats, a limit can neither be confirmed nor excluded, and every night would be unknown.
    assert {job.name: job.repeat for job in options.jobs if job.measured and job.repeat < 3} == {}


@pytest.mark.parametrize("name", ["plan.toml", "attached.toml"])
def test_the_plans_are_read(name: str) -> None:
    jobs = read_plan(HERE / name)
    assert len(jobs) == 4
    assert any(job.own_deployment for job in jobs) == (name == "plan.toml")


def test_every_file_is_checked() -> None:
    assert {path.name for path in HERE.iterdir()} == {*YAML, *UNITS, "plan.toml", "attached.toml"}
