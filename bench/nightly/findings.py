"""What the nights say, in sentences: since when something is wrong, slower or quicker, and what was new that night."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.nightly.record import Night
from bench.nightly.results import WRONG
from bench.nightly.series import Bad, Series, every_bad
from bench.nightly.trend import Change, Kind
from harness.reports.text import figure, plural


class Weight(StrEnum):
    """How a finding is to be taken; the names are those of the page's colours."""

    WRONG = "invalid"
    WORSE = "unknown"
    BETTER = "valid"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence."""

    weight: Weight
    text: str
    night: str
    """The first night of it."""
    chart: str = ""
    """Id of the chart that shows it."""


def findings(nights: Sequence[Night], series: Sequence[Series]) -> list[Finding]:
    """Everything that changed, the worst first; of equal weight, the newest first."""
    found = [*(_of_bad(nights, one) for one in every_bad(nights)), *_of_changes(nights, series)]
    order = list(Weight)
    return sorted(sorted(found, key=lambda one: one.night, reverse=True), key=lambda one: order.index(one.weight))


def chart_id(series: Series) -> str:
    """The element's id of a series's chart."""
    return f"trend-{series.job}-{series.figure.key}".lower().replace("_", "-")


def _of_bad(nights: Sequence[Night], bad: Bad) -> Finding:
    what = f"outputs of {bad.job} are wrong" if bad.key == WRONG else f"requests of {bad.job} fail"
    often = f"in {bad.nights} of {plural(bad.of, 'night')}" if bad.nights < bad.of else plural(bad.of, "night")
    before = f"; {plural(bad.clean_before, 'night')} before that had none" if bad.clean_before else ""
    text = f"{what} since the night of {bad.first.name}{_new(nights, bad.first)} ({often}{before})"
    return Finding(Weight.WRONG, _sentence(text), bad.first.name)


def _of_changes(nights: Sequence[Night], every: Sequence[Series]) -> Iterator[Finding]:
    for series in every:
        for change in series.changes:
            first = series.points[change.at].night
            weight = Weight.WORSE if series.worse(change) else Weight.BETTER
            text = f"{series.title} {_how(series, change)}{_new(nights, first)}"
            yield Finding(weight, _sentence(text), first.name, chart_id(series))


def _how(series: Series, change: Change) -> str:
    by = f"{abs(change.after / change.before - 1):.0%}".replace("%", " %")
    levels = f"from {figure(change.before)} to {figure(change.after)} {series.figure.unit}"
    verb = "rose" if change.after > change.before else "fell"
    first = series.points[change.at].night.name
    if change.kind is Kind.STEP:
        return f"{verb} by {by} ({levels}) at the night of {first}"
    until = series.points[min(change.until, len(series.points) - 1)].night.name
    return f"drifted: it {verb} by {by} ({levels}) little by little between {first} and {until}"


def _new(nights: Sequence[Night], first: Night) -> str:
    """What was new in a night: the first with another engine or harness than the last night that tells."""
    before = [night for night in nights[: nights.index(first)] if night.runs]
    engine = next((night.engine_version for night in reversed(before) if night.engine_version), "")
    parts = [first.engine_version] if engine and first.engine_version and first.engine_version != engine else []
    if before and harness_of(before[-1]) != harness_of(first):
        parts.append(harness_of(first))
    return f", the first with {' and '.join(parts)}" if parts else ""


def harness_of(night: Night) -> str:
    """The harness's version and commit; empty if the night does not tell."""
    return f"harness {night.harness_version} ({night.commit[:9] or 'no commit'})" if night.harness_version else ""


def first_bad(nights: Sequence[Night]) -> str:
    """The first night of what is wrong now; empty if the newest night is good and no job is wrong of late."""
    good = next((place for place in range(len(nights) - 1, -1, -1) if nights[place].good), -1)
    names = [nights[good + 1].name] if good + 1 < len(nights) else []
    return min([*names, *(one.first.name for one in every_bad(nights))], default="")


def standing(nights: Sequence[Night]) -> str:
    """Since when nights are not good."""
    good = next((place for place in range(len(nights) - 1, -1, -1) if nights[place].good), None)
    if good == len(nights) - 1:
        streak = next((n for n, night in enumerate(reversed(nights)) if not night.good), len(nights))
        return f"The last {plural(streak, 'night')} {'was' if streak == 1 else 'were'} valid."
    if good is None:
        return f"None of {plural(len(nights), 'night')} was valid."
    first = nights[good + 1]
    since = plural(len(nights) - good - 1, "night")
    return (
        f"Not valid since the night of {first.name}{_new(nights, first)} ({since}). "
        f"The last good night was {nights[good].name}."
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if not text.startswith("p") else f"{text}."
