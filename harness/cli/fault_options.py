"""The faults that a command line asks for."""

import argparse

from harness.cli.target_options import names_servers
from harness.deploy.target import Target
from harness.errors import UsageError
from harness.facts import Role
from harness.faults import FaultPlan, Reach, parse_fault, random_faults


def faults_of(flags: argparse.Namespace) -> tuple[FaultPlan, ...]:
    """The faults of the load. Raises UsageError where they would not be carried out."""
    if not (flags.fault or flags.faults):
        return ()
    if flags.sweep is not None:
        raise UsageError(
            "--sweep finds the rate that keeps the objectives, and a fault in each rate's run would decide that "
            "instead: give one rate with --request-rate in place of --sweep, or leave out --fault and --faults."
        )
    if flags.faults is not None and flags.workload:
        raise UsageError(
            "--faults draws moments in a load of known length, and a workload lasts as long as its requests: name "
            "faults with --fault, or leave out --workload."
        )
    plans = tuple(map(parse_fault, (*flags.fault, *_random_faults(flags))))
    launched = not names_servers(flags)
    Reach(_servers(flags), launched=launched, own_proxy=flags.base_url is None).require(plans)
    return plans


def _random_faults(flags: argparse.Namespace) -> list[str]:
    if flags.faults is None:
        return []
    if flags.duration_sec is None:
        raise UsageError("--faults draws the moments of faults in a load of known length: add --duration-sec S.")
    launched = not names_servers(flags)
    return random_faults(flags.faults, flags.duration_sec, flags.seed, _servers(flags), launched=launched)


def _servers(flags: argparse.Namespace) -> list[str]:
    """The names of the servers to attach to or to launch."""
    attached = names_servers(flags)
    numbers = {role: len(getattr(flags, f"{role}_url")) if attached else getattr(flags, role) for role in Role}
    return [f"{role}-{index}" for role, number in numbers.items() for index in range(number)]


def reach_of(target: Target) -> Reach:
    """What of a target's deployment faults may be about."""
    attached = target.attachment
    if attached is None:
        numbers = {Role.PREFILL: target.prefill, Role.DECODE: target.decode}
    else:
        numbers = {Role.PREFILL: len(attached.prefill_urls), Role.DECODE: len(attached.decode_urls)}
    names = [f"{role}-{index}" for role, number in numbers.items() for index in range(number)]
    return Reach(names, launched=attached is None, own_proxy=attached is None or attached.base_url is None)
