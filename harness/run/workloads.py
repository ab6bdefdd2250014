"""The workloads of the catalogue that can run on a deployment, and their scenarios."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.catalogue.background import beside_load
from harness.catalogue.needs import unmet
from harness.catalogue.registry import Workload
from harness.catalogue.setting import Setting
from harness.facts import Deployment
from harness.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Fitting:
    """The chosen workloads, divided by whether the deployment meets their needs."""

    scenarios: tuple[Scenario, ...]
    """The scenarios of the workloads that can run, in the order of the workloads."""
    skipped: Mapping[Workload, str]
    """The workloads that cannot run, with the reasons."""


def fit(entries: Sequence[Workload], deployment: Deployment, *, seed: int, salt: str, background: int = 0) -> Fitting:
    """Divide the workloads, and write scenarios; ``background``: requests kept in flight beside each workload.

    Raises UsageError if the known facts of the deployment do not suffice to write a scenario.
    """
    reasons = {entry: unmet(entry.needs, deployment) or _not_alone(entry, entries, deployment) for entry in entries}
    skipped = {entry: why for entry, why in reasons.items() if why}
    runnable = [entry for entry in entries if entry not in skipped]
    if not runnable:
        return Fitting((), skipped)
    setting = Setting.of(deployment, seed=seed, salt=salt)
    scenarios = tuple(entry(setting) for entry in runnable)
    if background:
        scenarios = tuple(beside_load(scenario, setting, background) for scenario in scenarios)
    return Fitting(scenarios, skipped)


def _not_alone(entry: Workload, entries: Sequence[Workload], deployment: Deployment) -> str | None:
    """Why a workload that may end a server cannot run here; None if it can."""
    if not entry.alone or (deployment.launched and len(entries) == 1):
        return None
    return "it may end a server: name no other workload, and let the harness launch a deployment for it"
