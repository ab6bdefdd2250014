"""Shows a run where a CI system looks, if the environment says that one is there. Changes no verdict."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.reports.catalogue import Row, overall
from harness.reports.ci import buildkite, github
from harness.reports.ci.announcement import Announcement, announcements, of_rows
from harness.reports.ci.markdown import rows_markdown, run_markdown
from harness.reports.report import Report
from harness.reports.text import clean
from harness.verdict import Verdict


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown of a run."""

    found: Sequence[Announcement]
    markdown: str
    verdict: Verdict
    names: Sequence[str]
    """Of the run and of its deployments."""


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def announce(report: Report, environment: Mapping[str, str], print_command: Callable[[str], None] = _on_stderr) -> None:
    """Announce a run. Whatever fails is one line on stderr. ``print_command`` prints what GitHub is to read there."""
    names = [report.identity.label, *_deployments(report.rows)]
    if _detected(environment):
        shown = _Shown(list(announcements(report)), run_markdown(report), report.verdict, names)
        _announce(shown, environment, print_command)


def announce_rows(
    rows: Sequence[Row], environment: Mapping[str, str], print_command: Callable[[str], None] = _on_stderr
) -> None:
    """Announce workloads of a deployment on which no run began; nothing if all of them were to be skipped."""
    if _detected(environment) and any(row.judgement for row in rows):
        shown = _Shown(list(of_rows(rows)), rows_markdown(rows), overall(rows), _deployments(rows))
        _announce(shown, environment, print_command)


def _detected(environment: Mapping[str, str]) -> bool:
    return _on_github(environment) or _on_buildkite(environment)


def _on_github(environment: Mapping[str, str]) -> bool:
    return environment.get("GITHUB_ACTIONS") == "true"


def _on_buildkite(environment: Mapping[str, str]) -> bool:
    return environment.get("BUILDKITE") == "true"


def _deployments(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.deployment_name for row in rows))


def _announce(shown: _Shown, environment: Mapping[str, str], print_command: Callable[[str], None]) -> None:
    if _on_github(environment):
        for line in github.workflow_commands(shown.found):
            print_command(line)
        if summary := environment.get("GITHUB_STEP_SUMMARY"):
            _summarize(Path(summary), shown.markdown)
    if _on_buildkite(environment):
        why = buildkite.annotate(shown.markdown, shown.verdict, buildkite.context_of(shown.names, environment))
        if why:
            print(f"the build was not annotated: {why}", file=sys.stderr)


def _summarize(path: Path, markdown: str) -> None:
    try:
        github.append_summary(path, markdown)
    except OSError as error:
        print(f"the step's summary was not written: {clean(str(path))}: {error.strerror}", file=sys.stderr)
