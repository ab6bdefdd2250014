"""Lines of the catalogue's table, made of a run that was judged as a whole."""

from collections.abc import Iterable, Sequence

from harness.catalogue.registry import Workload
from harness.checkers import of_nobody, seconds_of
from harness.cli.verify_workloads import judged_workloads
from harness.errors import HarnessError
from harness.facts import Deployment
from harness.history import History
from harness.reports import WHOLE_RUN, Row
from harness.verdict import Check, Judgement, Outputs, Verdict

NOTHING = Outputs(0, 0, 0, 0, 0)


def rows_of(
    ran: Sequence[Workload], deployment: Deployment, history: History, whole: Judgement, name: str
) -> list[Row]:
    """A line for each workload that ran, and one for what is not valid in the run and is nobody's."""
    judged = judged_workloads(ran, deployment, history, whole)
    rows = [_row(entry, history, judgement, name, deployment) for entry, judgement in judged]
    parts = {row.workload: row.judgement for row in rows if row.judgement}
    rest = of_nobody(deployment, history, whole, parts) if ran else None
    return rows if rest is None else [*rows, Row(WHOLE_RUN, "run", name, rest)]


def _row(entry: Workload, history: History, judgement: Judgement, name: str, deployment: Deployment) -> Row:
    asked = history.operations(scenario=entry.name)
    return Row(
        entry.name,
        entry.family,
        name,
        judgement,
        requests=sum(operation.request.of_load for operation in asked),
        seconds=seconds_of(history, entry.name),
        known_fault=entry.known_fault,
        deployment=deployment,
    )


def skipped_rows(entries: Iterable[Workload], name: str, why: str) -> list[Row]:
    """Lines of workloads that cannot run here."""
    return [Row(entry.name, entry.family, name, skipped=why) for entry in entries]


def failed_rows(entries: Iterable[Workload], name: str, error: HarnessError) -> list[Row]:
    """Lines of workloads that were to run, and did not, since the harness or the deployment failed."""
    return [unknown_row(entry, name, Check("deployment", Verdict.UNKNOWN, str(error))) for entry in entries]


def unknown_row(entry: Workload, name: str, why: Check) -> Row:
    """A line of a workload of which nothing is known."""
    return Row(entry.name, entry.family, name, Judgement((why,), NOTHING))
