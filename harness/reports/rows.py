"""The lines of the catalogue's table, made from a run that was judged."""

from collections.abc import Mapping, Sequence
from functools import partial

from harness.catalogue.registry import Workload
from harness.checkers import judge_scenario, of_nobody, seconds_of
from harness.facts import Deployment
from harness.history import History
from harness.reports.catalogue import WHOLE_RUN, Row
from harness.verdict import Check, Judgement, Outputs
from harness.verify.judging import look_at_outputs

AS_GIVEN = "as given"
"""The deployment's name in the table if it is none of the presets."""
NOTHING = Outputs(0, 0, 0, 0, 0)


def rows_of(  # noqa: PLR0913 - keyword-only: what was run, and how it was judged
    entries: Sequence[Workload],
    name: str,
    *,
    left: Mapping[Workload, Row],
    deployment: Deployment,
    history: History,
    whole: Judgement,
) -> list[Row]:
    """A line for each workload, and one for what is not valid in the run and belongs to no workload.

    ``name``: the deployment's, in the table. ``left``: the lines of workloads that did not run. ``whole``: the
    judgement of the run as a whole.
    """
    ran = [entry for entry in entries if entry not in left]
    compared = look_at_outputs(history) if ran else None
    judge = partial(judge_scenario, deployment, history, whole, compared=compared)
    rows = dict(left)
    for entry in ran:
        rows[entry] = _row(entry, history, judge(entry.name, provokes=entry.provokes), name, deployment)
    parts = {entry.name: judgement for entry in ran if (judgement := rows[entry].judgement)}
    rest = of_nobody(deployment, history, whole, parts) if ran else None
    table = [rows[entry] for entry in entries]
    return table if rest is None else [*table, Row(WHOLE_RUN, "run", name, rest)]


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
    """The line of a workload that cannot run on this deployment."""
    return Row(entry.name, entry.family, name, skipped=why)


def unknown_row(entry: Workload, name: str, why: Check) -> Row:
    """The line of a workload of which nothing is known."""
    return Row(entry.name, entry.family, name, Judgement((why,), NOTHING))
