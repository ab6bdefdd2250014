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
    skipped = {entry: why for entry in entries if (why := unmet(entry.needs, deployment))}
    runnable = [entry for entry in entries if entry not in skipped]
    if not runnable:
        return Fitting((), skipped)
    setting = Setting.of(deployment, seed=seed, salt=salt)
    scenarios = tuple(entry(setting) for entry in runnable)
    if background:
        scenarios = tuple(beside_load(scenario, setting, background) for scenario in scenarios)
    return Fitting(scenarios, skipped)
