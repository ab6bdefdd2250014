"""The lines of the catalogue's table, made from a run that was judged."""

from collections.abc import Iterable, Sequence
from functools import partial

from harness.catalogue.registry import Workload
from harness.checkers import judge_scenario, of_nobody, seconds_of
from harness.errors import HarnessError
from harness.facts import Deployment
from harness.history import History
from harness.reports.catalogue import WHOLE_RUN, Row
from harness.verdict import Check, Judgement, Outputs, Verdict
from harness.verify.judging import look_at_outputs

AS_GIVEN = "as given"
"""The deployment's name in the table if it is none of the presets."""
NOTHING = Outputs(0, 0, 0, 0, 0)


def rows_of(
    ran: Sequence[Workload], deployment: Deployment, history: History, whole: Judgement, name: str
) -> list[Row]:
    """A line for each workload that ran, and one for what is not valid in the run and belongs to no workload.

    ``whole``: the judgement of the run as a whole. ``name``: the deployment's, in the table.
    """
    compared = look_at_outputs(history) if ran else None
    judge = partial(judge_scenario, deployment, history, whole, compared=compared)
    rows = [_row(entry, history, judge(entry.name, provokes=entry.provokes), name, deployment) for entry in ran]
    parts = {row.workload: row.judgement for row in rows if row.judgement}
    rest = of_nobody(deployment, history, whole, parts) if ran else None
    return rows if rest is None else [*rows, Row(WHOLE_RUN, "run", name, rest)]


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
        facts=deployment,
    )


def skipped_rows(entries: Iterable[Workload], name: str, why: str) -> list[Row]:
    """Lines of workloads that cannot run on this deployment."""
    return [Row(entry.name, entry.family, name, skipped=why) for entry in entries]


def failed_rows(entries: Iterable[Workload], name: str, error: HarnessError) -> list[Row]:
    """Lines of workloads that did not run because the harness or the deployment failed."""
    return [unknown_row(entry, name, Check("deployment", Verdict.UNKNOWN, str(error))) for entry in entries]


def unknown_row(entry: Workload, name: str, why: Check) -> Row:
    """The line of a workload of which nothing is known."""
    return Row(entry.name, entry.family, name, Judgement((why,), NOTHING))
