"""A night beside the last good one."""

from bench.nightly import archive
from bench.nightly.night import Nightly
from bench.nightly.record import Night


def compare_night(nightly: Nightly) -> None:
    """Compare each measured job with the last good night's."""
    good = last_good(archive.read_all(nightly.options.result_dir), nightly.night)
    nightly.night.compared_with = good.name if good else ""


def last_good(nights: tuple[Night, ...], night: Night) -> Night | None:
    """The newest night before this one that was valid, on the same deployment; None: there is none."""
    wanted = deployments(night)
    return next(
        (one for one in reversed(nights) if one.good and one.name != night.name and deployments(one) == wanted), None
    )


def deployments(night: Night) -> set[tuple[tuple[str, str], ...]]:
    """What the deployments of a night's measured jobs were."""
    return {tuple(sorted(run.deployment.items())) for run in night.runs if run.deployment}
