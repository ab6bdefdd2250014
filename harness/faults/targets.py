"""Finds the processes that a fault is aimed at."""

from harness.errors import UsageError
from harness.faults.site import Site


def running_pids(site: Site, name: str) -> tuple[int, ...]:
    """The ids of a server's processes. Raises UsageError if the harness started no such server."""
    if site.processes is None:
        raise UsageError(
            f"A fault on the process of {name} needs a deployment that the harness launched: leave out --prefill-url "
            "and --decode-url."
        )
    if name not in site.processes.names():
        raise UsageError(f"There is no process {name}; there are {', '.join(site.processes.names())}.")
    return site.processes.pids(name)
