"""The faults of a run: what was done to which part, when, what was observed of it, and how soon it was over."""

from collections.abc import Iterator
from typing import Any

from harness.checkers.windows import Window, windows
from harness.history import History
from harness.reports.text import clean, duration


def faults_as_json(history: History) -> list[dict[str, Any]]:
    """The key ``faults`` of result.json. ``from`` and ``to`` are seconds on the run's clock; null: it never came."""
    return [_as_json(one) for one in windows(history)]


def _as_json(window: Window) -> dict[str, Any]:
    return {
        "name": window.name,
        "kind": window.planned.fault_kind,
        "target": window.planned.target,
        "what": window.planned.text,
        "from": window.began,
        "to": window.healed_at,
        "evidence": window.evidence or None,
        "healed": window.healed,
        "healing": window.text or None,
        "recovered_after": window.recovered_after,
    }


def fault_lines(history: History) -> Iterator[str]:
    """A line for each fault."""
    for one in windows(history):
        yield clean(f"{one.name}: {one.planned.text}: {'; '.join(_parts(one))}", None)


def _parts(window: Window) -> Iterator[str]:
    if window.began is None:
        yield "not begun before the load ended"
        return
    yield window.evidence or "no evidence that it took hold"
    if window.healed_at is not None and window.healed:
        yield f"undone after {duration(window.healed_at - window.began)}"
    else:
        yield f"not undone: {window.text or 'the history ends before'}"
    yield _recovered(window)


def _recovered(window: Window) -> str:
    if window.recovered_after is None:
        return "no request completed afterwards"
    return f"served again {duration(window.recovered_after)} later"
