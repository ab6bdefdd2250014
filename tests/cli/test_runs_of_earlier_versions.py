"""``check`` says of runs that earlier versions stored what those versions said, except where a rule has changed since.

tests/data/runs/README.md tells how the samples were made.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stored_samples import then, unpack

from harness.cli.rejudged import rejudge

_SAMPLES = {said["sample"]: said for said in then()}
_AT_ONCE = (
    "the simulated pair answered these small requests within the delays of the client's event loop, and an answer that "
    "is made so quickly no longer shows that it was not held back"
)
_UNREAD = "the check of streaming was added later, and " + _AT_ONCE
_ADDED = "the check of streaming was added later"
_CPU = "the share of a core that the client used was not stored, so whether it limited the load is unknown"
_TABLE = "result.json had the worst of all checks; its exit code was that of the table, as the verdict is today"


@dataclass(frozen=True)
class Changed:
    """What today's rules say otherwise of a sample, each with its reason."""

    run: tuple[str, str] | None = None
    """Today's verdict of the run, and why."""
    exit_code: int | None = None
    checks: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By check: today's verdict, and why."""


_FIRST = {"streaming": ("unknown", _UNREAD), "client_health": ("unknown", _CPU)}

CHANGED = {
    "20261123T0114-c3716e9-plain": Changed(("unknown", _CPU), 3, _FIRST),
    "20261123T0114-c3716e9-planted": Changed(checks=_FIRST),
    "20261123T0114-c3716e9-noisy": Changed(checks=_FIRST),
    "20261123T0123-f8fa4f2-plain": Changed(checks={"streaming": ("valid", _ADDED)}),
    "20261123T0123-f8fa4f2-planted": Changed(checks={"streaming": ("valid", _ADDED)}),
    "20261123T0128-1ad831f-plain": Changed(("unknown", _UNREAD), 3, {"streaming": ("unknown", _UNREAD)}),
    "20261123T0128-1ad831f-planted": Changed(checks={"streaming": ("valid", _ADDED)}),
    "20261123T0412-d46f800-catalogue": Changed(checks={"streaming": ("unknown", _AT_ONCE)}),
    "20261123T0622-c3ad884-catalogue": Changed(("valid", _TABLE)),
    "20261123T0622-c3ad884-planted": Changed(checks={"streaming": ("unknown", _AT_ONCE)}),
    "20261125T2341-a3905b5-catalogue": Changed(checks={"streaming": ("unknown", _AT_ONCE)}),
}


@pytest.mark.parametrize("sample", _SAMPLES)
def test_a_stored_run_has_the_verdict_that_its_own_version_gave(sample: str, tmp_path: Path) -> None:
    said, changed = _SAMPLES[sample], CHANGED.get(sample, Changed())
    report = rejudge(unpack(sample, tmp_path))
    assert report.verdict == (changed.run[0] if changed.run else said["verdict"])
    assert report.exit_code == (said["exit_code"] if changed.exit_code is None else changed.exit_code)
    expected = said["checks"] | {name: verdict for name, (verdict, _) in changed.checks.items()}
    assert {check.name: str(check.verdict) for check in report.checks} == expected
    assert {row.workload: row.word for row in report.rows} == said.get("workloads", {})


@pytest.mark.parametrize("sample", CHANGED)
def test_what_is_listed_as_changed_has_changed(sample: str) -> None:
    said, changed = _SAMPLES[sample], CHANGED[sample]
    assert changed.run is None or changed.run[0] != said["verdict"]
    assert changed.exit_code is None or changed.exit_code != said["exit_code"]
    assert all(said["checks"].get(name) != verdict for name, (verdict, _) in changed.checks.items())
