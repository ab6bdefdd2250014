"""A comparison as plain lines, as Markdown and as JSON. Names of runs are foreign text: they are cleaned or escaped."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from scipy.stats import binomtest

from harness.compare.changes import Change
from harness.compare.comparison import Comparison, beside
from harness.compare.evidence import LEVEL, Answer, as_share
from harness.compare.metrics import Family
from harness.compare.outputs import OutputsChange
from harness.compare.stored_run import Share, StoredRun
from harness.reports.text import clean, figure, plural

HEADER = ("metric", "baseline", "run", "change", "95 % interval", "verdict")
SHOWN = (Family.PRIMARY, Family.FURTHER)


def cells(change: Change) -> tuple[str, ...]:
    """One row of the table: as many cells as ``HEADER``."""
    evidence, sides, unit = change.evidence, change.sides, change.metric.unit
    name = clean(f"{change.metric.name} {unit}".strip(), 60)
    interval = ""
    if evidence.low is not None and evidence.high is not None:
        interval = f"{_amount(change, evidence.low)} to {_amount(change, evidence.high)}"
    means = (_mean(values, relative=sides.relative) for values in (sides.baseline, sides.run))
    return name, *map(figure, means), _amount(change, evidence.difference), interval, _word(change)


def _word(change: Change) -> str:
    answer = change.evidence.answer
    if answer is Answer.REAL and change.metric.higher_is_worse is not None:
        return f"{answer}, {'worse' if change.worse else 'better'}"
    if answer is Answer.NOISE and change.evidence.smallest is not None:
        towards_worse = -1 if change.metric.higher_is_worse is False else 1
        return f"{answer} (found from {_amount(change, towards_worse * change.evidence.smallest)})"
    return str(answer)


def _amount(change: Change, difference: float) -> str:
    if change.sides.relative:
        return f"{as_share(difference) * 100:+.1f} %"
    return f"{difference:+.3g}"


def _mean(values: Sequence[float], *, relative: bool) -> float:
    """The geometric mean if differences are of logarithms, so that the change is that of the two figures."""
    if relative:
        return math.exp(sum(map(math.log, values)) / len(values))
    return sum(values) / len(values)


def shown(comparison: Comparison) -> list[Change]:
    """The changes that a table lists: all latencies and rates; of the others, those that differ at all."""
    return [one for one in comparison.changes if one.metric.family in SHOWN or one.evidence.answer is not Answer.SAME]


def headline(comparison: Comparison) -> str:
    """The conclusion, and the first reason for it."""
    runs = f"{plural(len(comparison.run), 'run')} against {len(comparison.baseline)} of the baseline"
    return f"{str(comparison.conclusion).upper()}: {runs}"


def outputs_line(change: OutputsChange) -> str:
    """What became of the outputs of the same requests."""
    if not change.shared:
        return "outputs: the runs have no request in common (another seed?), so outputs are not compared"
    line = f"outputs: {change.equal:,} of {plural(change.shared, 'request')} have the same output"
    different = change.shared - change.equal
    if not different:
        return line
    parts = [
        f"{change.wrong_in_run} wrong in the run only",
        f"{change.wrong_in_baseline} wrong in the baseline only",
        f"{change.near_ties} near ties (both were verified and are right)",
        f"{change.unexplained} not verified on both sides",
    ]
    line += f"; {different:,} differ: " + ", ".join(part for part in parts if not part.startswith("0 "))
    if change.differing_within is not None and change.differing_between is not None:
        line += (
            f". Between two runs of the baseline {change.differing_within:.2%} differ, between a run of each side "
            f"{change.differing_between:.2%}"
        )
    return line


def share_line(name: str, baseline: Share, run: Share) -> str:
    """A share on both sides with its exact 95 % interval (Clopper and Pearson)."""
    return f"{name}: baseline {_share(baseline)}; run {_share(run)}"


def _share(share: Share) -> str:
    if not share.of:
        return "none of 0"
    ends = binomtest(share.number, share.of).proportion_ci(0.95, "exact")
    return f"{share.number:,} of {share.of:,} ({ends.low:.2%} to {ends.high:.2%})"


def _versions(side: Sequence[StoredRun]) -> str:
    texts = dict.fromkeys(", ".join(f"{name} {value[:12]}" for name, value in one.versions.items()) for one in side)
    return clean("; ".join(texts))


def around_lines(comparison: Comparison) -> Iterator[str]:
    """What stands below the table: outputs, shares, limits, versions, notes."""
    yield outputs_line(comparison.outputs)
    for one in comparison.outputs.examples:
        lead = "" if one.lead is None else f", where the better one led by {one.lead:.3g} nats"
        wrong = f"; wrong in {one.wrong}" if one.wrong else "; both right" if one.both_right else ""
        yield clean(f"  {one.baseline} and {one.run}: differ from token {one.token}{lead}{wrong}")
    yield from (share_line(name, *both) for name, both in comparison.totals.items())
    alike = [one for one in comparison.changes if one.metric.family is Family.COUNTERS]
    same = sum(one.evidence.answer is Answer.SAME for one in alike)
    if alike:
        yield f"counters: {same} of {len(alike)} are the same for each completed request"
    for limit in comparison.limits:
        yield clean(f"limit {limit.threshold.text}: {limit.kept}: {limit.why}")
    yield f"baseline: {_versions(comparison.baseline)}"
    yield f"run: {_versions(comparison.run)}"
    for name, values in comparison.allowed.items():
        yield clean(f"differs, as allowed: {name}: {beside(values)}")
    yield from (clean(f"note: {note}") for note in comparison.notes)


def plain_lines(comparison: Comparison) -> Iterator[str]:
    """The whole comparison, one line for each thing."""
    yield headline(comparison)
    yield from (clean(f"  {reason}", None) for reason in comparison.reasons)
    for change in shown(comparison):
        name, old, new, amount, interval, word = cells(change)
        yield f"{name}: {old} to {new}, {amount}" + (f" ({interval})" if interval else "") + f": {word}"
    yield from around_lines(comparison)


def markdown(comparison: Comparison) -> str:
    """The comparison for a step summary of a CI system."""
    lines = [f"### {_escaped(headline(comparison))}", ""]
    lines += [f"- {_escaped(reason)}" for reason in comparison.reasons] + [""]
    lines += ["| " + " | ".join(HEADER) + " |", "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(map(_escaped, cells(change))) + " |" for change in shown(comparison)]
    lines += ["", *(f"- {_escaped(line)}" for line in around_lines(comparison))]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: neither HTML, nor links, nor the end of a table's cell."""
    escaped = clean(text, None).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "|`*_[]!#@~":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return escaped


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for other programs, fit for strict JSON."""
    return {
        "conclusion": str(comparison.conclusion),
        "exit_code": int(comparison.exit_code),
        "reasons": list(comparison.reasons),
        "notes": list(comparison.notes),
        "level": LEVEL,
        "baseline": [_run(one) for one in comparison.baseline],
        "run": [_run(one) for one in comparison.run],
        "metrics": {one.metric.name: _metric(one) for one in comparison.changes},
        "outputs": {**asdict(comparison.outputs), "answer": str(comparison.outputs.answer)},
        "shares": {
            name: {"baseline": asdict(both[0]), "run": asdict(both[1])} for name, both in comparison.totals.items()
        },
        "limits": [
            {"limit": one.threshold.text, "kept": str(one.kept), "why": one.why, "more_runs": one.more_runs}
            for one in comparison.limits
        ],
        "allowed_differences": {name: dict(values) for name, values in comparison.allowed.items()},
    }


def _run(run: StoredRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "began": run.began,
        "verdict": str(run.verdict),
        "seed": run.seed,
        "versions": dict(run.versions),
        "settings": dict(run.settings),
        "latencies_not_compared_because": run.why_no_latencies or None,
    }


def _metric(change: Change) -> dict[str, Any]:
    evidence, relative = change.evidence, change.sides.relative

    def amount(difference: float | None) -> float | None:
        found = as_share(difference) if difference is not None and relative else difference
        return found if found is None or math.isfinite(found) else None

    return {
        "family": str(change.metric.family),
        "unit": change.metric.unit,
        "baseline": list(change.sides.baseline),
        "run": list(change.sides.run),
        "relative": relative,
        "change": amount(evidence.difference),
        "interval_95": None if evidence.low is None else [amount(evidence.low), amount(evidence.high)],
        "p": evidence.p,
        "p_family": evidence.p_family,
        "p_permutation": evidence.p_permutation,
        "smallest_change_found": amount(evidence.smallest),
        "verdict": str(evidence.answer),
        "worse": change.worse,
        "why": evidence.why,
    }
