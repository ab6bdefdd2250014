"""The rows of the catalogue's table, made from a judged run."""

from collections.abc import Mapping, Sequence
from functools import partial

from harness.catalogue.registry import Workload
from harness.checkers import judge_rest, judge_scenario, seconds_of
from harness.facts import Deployment
from harness.history import History
from harness.reports.catalogue import WHOLE_RUN, Row
from harness.verdict import Check, Judgement, Verdict
from harness.verify.judging import look_at_outputs

AS_GIVEN = "as given"
"""The deployment's name in the table if it has no preset."""


def rows_of(  # noqa: PLR0913 - keyword-only: what was run, and how it was judged
    entries: Sequence[Workload],
    name: str,
    *,
    left: Mapping[Workload, Row],
    deployment: Deployment,
    history: History,
    whole: Judgement,
) -> list[Row]:
    """A row for each workload, and one for checks that are not valid for a reason in no workload.

    ``name``: the deployment's name in the table. ``left``: rows of workloads that did not run. ``whole``: the judgement
    of the whole run.
    """
    ran = [entry for entry in entries if entry not in left]
    compared = look_at_outputs(history) if ran else None
    judge = partial(judge_scenario, deployment, history, whole, compared=compared)
    rows = dict(left)
    for entry in ran:
        rows[entry] = _row(
            entry, history, judge(entry.name, provokes=entry.provokes, faulted=bool(entry.faults)), name, deployment
        )
    parts = {entry.name: judgement for entry in ran if (judgement := rows[entry].judgement)}
    rest = judge_rest(deployment, history, whole, parts) if ran else None
    table = [rows[entry] for entry in entries]
    if rest is None or (rest.verdict is Verdict.UNKNOWN and any(map(_ended_a_server, table))):
        return table
    return [*table, Row(WHOLE_RUN, "run", name, rest)]


def _ended_a_server(row: Row) -> bool:
    """Whether a known fault ended a server: what is unknown about the whole run is so because the server is gone."""
    gone = row.judgement is not None and any(check.name == "processes" for check in row.judgement.checks)
    return gone and row.excused


def _row(entry: Workload, history: History, judgement: Judgement, name: str, deployment: Deployment) -> Row:
    operations = history.operations(scenario=entry.name)
    return Row(
        entry.name,
        entry.family,
        name,
        judgement,
        requests=sum(operation.request.of_load for operation in operations),
        seconds=seconds_of(history, entry.name),
        known_fault=entry.known_fault,
        deployment=deployment,
    )


def skipped_row(entry: Workload, name: str, why: str) -> Row:
    """The row of a workload that cannot run on this deployment."""
    return Row(entry.name, entry.family, name, skipped=why)


def unknown_row(entry: Workload, name: str, why: Check) -> Row:
    """The row of a workload about which nothing is known."""
    return Row(entry.name, entry.family, name, Judgement((why,)))
