"""Outputs whose first token is not bit for bit prefill's, on servers where it is for all others. Pure.

Two blocks that changed places leave an answer as it is: attention adds the same numbers in another order, and only the
last bits differ. The next prompt that finds these blocks gets a wrong answer. If the cache has lost them, probes find
nothing, and the first token is the only trace.

Such a difference counts if all of this holds:

1. For nine tenths of the run's requests or more, prefill's and decode's first tokens are equal to the last bit.
2. The decode server computed the same prompt again without KV transfer (a control request), and the result is bit for
   bit what prefill had computed.
3. So are the first tokens of all other control requests, _FEWEST_CONTROLS at least. A single one that differs shows
   that servers do not repeat themselves to the last bit, and nothing counts.
4. No other request of the load begins with the same tokens. Blocks that decode has already may be its own, computed
   from an answer token by token, whose last bits differ from prefill's.

The rule assumes that correct servers do not err in the last bit once in thousands of requests and at no other time. On
vLLM 0.32 in float32 on a CPU, none of 9,000 clean requests differed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from harness.history import History, Operation, Outcome
from harness.memo import once
from harness.scenario import Purpose
from harness.verify.judging.limits import RESOLUTION
from harness.verify.judging.load_part import Load, asked_of, load_of
from harness.verify.judging.witness import Witnessed, witnessed

_FEWEST_CONTROLS = 16
_BEGINNING = 16
"""Tokens of the smallest block in use."""


def unequal(history: History) -> tuple[str, ...]:
    """The outputs that may count, the largest difference first: those of rules 1 and 4."""
    first = witnessed(history)
    return _alone(load_of(history), first) if first.exact else ()


@once
def _alone(load: Load, first: Witnessed) -> tuple[str, ...]:
    """The strangest outputs whose prompts begin as no others do."""
    alike = Counter(map(_beginning, load))
    alone = {o.request.request_id for o in load if o.prompt_token_ids and alike[_beginning(o)] == 1}
    return tuple(name for name in first.strangest if name in alone)


def traces(history: History) -> tuple[str, ...]:
    """The outputs of ``unequal`` that differ by less than any noise limit: nothing but the last bits are wrong."""
    gaps = witnessed(history).gaps
    return tuple(name for name in unequal(history) if gaps[name] < RESOLUTION)


@once
def proven_unequal(history: History) -> Mapping[str, str]:
    """The outputs that count, by request id, each with the reason."""
    candidates = unequal(history)
    repeated = list(_repeated(history)) if candidates else []
    if len(repeated) < _FEWEST_CONTROLS or not all(same for _, same in repeated):
        return {}
    own, first = Counter(name for name, _ in repeated), witnessed(history)
    return {name: _reason(name, own[name], len(repeated), first) for name in candidates if own[name]}


def _reason(name: str, own: int, controls: int, first: Witnessed) -> str:
    return (
        f"{first.difference(name)}, while {first.equal:,} other outputs and {controls} control outputs ({own} of this "
        "prompt) are equal to the last bit: its KV is not what prefill computed"
    )


def _beginning(operation: Operation) -> tuple[str | None, tuple[int, ...]]:
    return operation.request.cache_salt, (operation.prompt_token_ids or ())[:_BEGINNING]


def _repeated(history: History) -> Iterator[tuple[str, bool]]:
    """For each control request: whose prompt it repeated, and whether its first token is what prefill had computed."""
    subjects = {o.request.request_id: o for o in load_of(history)}
    for control in asked_of(history):
        subject = subjects.get(control.request.about or "")
        if control.request.purpose is not Purpose.CONTROL or control.outcome is not Outcome.OK or subject is None:
            continue
        if control.prompt_token_ids == subject.prompt_token_ids and (common := _common(control, subject)):
            yield subject.request.request_id, all(one == other for one, other in common)


def _common(control: Operation, subject: Operation) -> list[tuple[float, float]]:
    """The log-probabilities of the first token that both name."""
    own, prefill = dict(control.ended.first_logprobs), dict(subject.ended.prefill_first)
    return [(own[token], prefill[token]) for token in own.keys() & prefill.keys()]
