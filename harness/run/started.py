"""How a run begins: its first entry, and a cache salt that no run before it has used."""

import time
from importlib.metadata import PackageNotFoundError, version

from harness.history import RunStarted
from harness.run.checkout import own_commit


def run_started_now(argv: tuple[str, ...], *, seed: int, names: tuple[str, ...]) -> RunStarted:
    """The first entry of a run that begins now; ``names``: of the scenarios that it is about to send."""
    return RunStarted(
        wall=time.time(), argv=argv, seed=seed, harness_version=_version(), commit=own_commit(), scenarios=names
    )


def fresh_salt() -> str:
    """A new cache salt for each run, since the deployment and its caches may outlive the run."""
    return f"run-{time.time_ns():x}"


def _version() -> str:
    """The installed harness's version. A checkout that runs uninstalled is identified by its commit instead."""
    try:
        return version("pd-harness")
    except PackageNotFoundError:
        return "uninstalled"
