"""The faults that a command line asks for."""

import argparse

from harness.cli.target_options import names_servers
from harness.errors import UsageError
from harness.facts import Role
from harness.faults import FaultPlan, parse_fault, random_faults


def faults_of(flags: argparse.Namespace) -> tuple[FaultPlan, ...]:
    """The faults of the load. Raises UsageError where they would not be carried out."""
    if not (flags.fault or flags.faults):
        return ()
    for flag, given in (("--workload", bool(flags.workload)), ("--sweep", flags.sweep is not None)):
        if given:
            raise UsageError(f"--fault and --faults act on a plain load: leave them out, or {flag}.")
    return tuple(map(parse_fault, (*flags.fault, *_random_faults(flags))))


def _random_faults(flags: argparse.Namespace) -> list[str]:
    if flags.faults is None:
        return []
    if flags.duration_sec is None:
        raise UsageError("--faults draws the moments of faults in a load of known length: add --duration-sec S.")
    attached = names_servers(flags)
    numbers = {role: len(getattr(flags, f"{role}_url")) if attached else getattr(flags, role) for role in Role}
    servers = [f"{role}-{index}" for role, number in numbers.items() for index in range(number)]
    return random_faults(flags.faults, flags.duration_sec, flags.seed, servers, launched=not attached)
