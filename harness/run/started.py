"""The beginning of a run: its first entry, and a cache salt that no earlier run has used."""

import time
from importlib.metadata import PackageNotFoundError, version

from harness.history import RunStarted
from harness.run.checkout import own_commit


def run_started_now(argv: tuple[str, ...], *, seed: int, names: tuple[str, ...]) -> RunStarted:
    """The first entry of a run that begins now; ``names``: the scenarios that the run is about to send."""
    return RunStarted(
        wall=time.time(),
        argv=argv,
        seed=seed,
        harness_version=installed_version(),
        commit=own_commit(),
        scenarios=names,
    )


def fresh_salt() -> str:
    """A new cache salt for each run, since the deployment and its caches may outlive the run."""
    return f"run-{time.time_ns():x}"


def installed_version() -> str:
    """The version of the installed harness. A checkout that is not installed is identified by its commit instead."""
    try:
        return version("pd-harness")
    except PackageNotFoundError:
        return "uninstalled"
