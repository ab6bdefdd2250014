"""Runs all checkers. The run has the worst of their verdicts; a checker that crashes is unknown."""

from collections.abc import Callable, Iterable

from harness.checkers.advice import advised
from harness.checkers.client_health import client_health
from harness.checkers.completion import completion
from harness.checkers.failed_transfers import failed_transfers
from harness.checkers.faults import faults
from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.offload_bytes import offload_bytes
from harness.checkers.predictions import Source, predictions_from
from harness.checkers.processes import excused, processes
from harness.checkers.settled import settled
from harness.checkers.streaming import streaming
from harness.checkers.token_sources import token_sources
from harness.checkers.windows import windows
from harness.collector import collector_paused
from harness.facts import Connector, Deployment
from harness.history import History
from harness.verdict import Advice, Check, Judgement, Outputs, Verdict
from harness.verify.judging import count_outputs, outputs
from harness.verify.judging.salts import salts, tested

Checker = Callable[[Deployment, History], Check]

CHECKERS: tuple[tuple[Checker, Connector | None], ...] = (
    (completion, None),
    (outputs, None),
    (token_sources, None),
    (nixl_bytes, Connector.NIXL),
    (offload_bytes, Connector.OFFLOADING),
    (failed_transfers, Connector.NIXL),
    (settled, None),
    (streaming, None),
    (client_health, None),
)
"""Each checker with the connector that it needs. ``salts`` comes first in runs that tested salts: other checkers
rely on it."""

_OWN_FAULT = Advice("a fault of the harness, not of the deployment", "report it with the run's directory")


def judge(
    deployment: Deployment,
    history: History,
    checkers: Iterable[tuple[Checker, Connector | None]] = CHECKERS,
    *,
    predictions: Source | None = None,
) -> Judgement:
    """The results of the checkers that apply to the deployment, in order, with advice where a check is not valid.

    ``predictions``: is asked for the predictions of counters before they are made here; the result is the same.
    """
    applying = [checker for checker, needs in checkers if needs is None or deployment.has(needs) is not False]
    with collector_paused(), predictions_from(predictions):
        if tested(deployment, history):
            applying.insert(0, salts)
        if windows(history):
            applying.insert(0, faults)
        if history.died:
            applying.insert(0, processes)
        # Predicting counters takes most memory: it comes first, before the results of other checks take some.
        by_memory = sorted(applying, key=lambda checker: checker is not token_sources)
        found = {checker: excused(_checked(checker, deployment, history), history) for checker in by_memory}
        checks = tuple(found[checker] for checker in applying)
        return Judgement(advised(deployment, history, checks), _counted(history))


def _counted(history: History) -> Outputs:
    try:
        return count_outputs(history)
    except Exception:  # noqa: BLE001 - the check "outputs" fails in the same way, and reports it
        return Outputs()


def _checked(checker: Checker, deployment: Deployment, history: History) -> Check:
    try:
        return checker(deployment, history)
    except Exception as error:  # noqa: BLE001 - a bug in one checker must not hide the results of the others
        name = getattr(checker, "__name__", str(checker))
        text = f"the checker itself failed: {type(error).__name__}: {error}"
        return Check(name, Verdict.UNKNOWN, text, advice=_OWN_FAULT)
