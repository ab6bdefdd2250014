"""Workloads of the catalogue on one deployment: which of them can run there, and what they send."""

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
    """The chosen workloads, divided by whether the deployment has what they need."""

    scenarios: tuple[Scenario, ...]
    """Of the workloads that can run, in their order."""
    skipped: Mapping[Workload, str]
    """Why each of the others cannot run."""


def fit(entries: Sequence[Workload], deployment: Deployment, *, seed: int, salt: str, background: int = 0) -> Fitting:
    """Which workloads can run, and what they send; ``background``: requests kept in flight beside each.

    Raises UsageError if a scenario cannot be written for what is known of the deployment.
    """
    skipped = {entry: why for entry in entries if (why := unmet(entry.needs, deployment))}
    runnable = [entry for entry in entries if entry not in skipped]
    if not runnable:
        return Fitting((), skipped)
    setting = Setting.of(deployment, seed=seed, salt=salt)
    scenarios = (entry(setting) for entry in runnable)
    return Fitting(
        tuple(beside_load(scenario, setting, background) if background else scenario for scenario in scenarios),
        skipped,
    )
