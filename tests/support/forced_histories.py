"""Served outputs and their teacher forcing, drawn at random; they differ only by noise unless a test adds damage.

At each position two tokens lead the others, by a margin that is drawn. Serving and forcing each add an error to their
logits. The server takes the token that leads as served, so that near ties flip as often as the noise implies.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.history import Choice, Ended, Entry, History, Outcome, RunEnded, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Route, Sampling

Floats = npt.NDArray[np.float64]
Errors = Callable[[np.random.Generator, int], Floats]
TOKENS = 20


def gaussian(sigma: float) -> Errors:
    """Normal errors in nats; float32 on one machine has errors of about 1e-5."""
    return lambda rng, n: rng.normal(scale=sigma, size=n)


def quantised(step: float) -> Errors:
    """Errors in the last bit of bfloat16 logits: one in sixteen is a step; one output in seven flips a near tie."""
    return lambda rng, n: np.round(rng.normal(scale=0.27, size=n)) * step


def conditioned(sigma: float) -> Errors:
    """Errors that differ by position: those of the worst twentieth are ten times those of the best twentieth."""
    return lambda rng, n: rng.normal(size=n) * sigma * np.exp(0.7 * rng.normal(size=n).clip(-2, 2))


@dataclass
class Readings:
    """One output: its tokens, and log-probabilities of each token and of its rival as served and as forced, nats."""

    served: Floats
    rival: Floats
    forced: Floats
    forced_rival: Floats
    tokens: list[int] = field(default_factory=list)


def read(rng: np.random.Generator, errors: Errors, tokens: int = TOKENS) -> Readings:
    """Draw one output."""
    best, margin = -rng.exponential(0.4, tokens), rng.exponential(1.0, tokens)
    logits = np.stack([best, best - margin])
    served = logits + np.stack([errors(rng, tokens), errors(rng, tokens)])
    forced = logits + np.stack([errors(rng, tokens), errors(rng, tokens)])
    first = served.argmax(axis=0)
    place = np.arange(tokens)
    return Readings(
        served[first, place],
        served[1 - first, place],
        forced[first, place],
        forced[1 - first, place],
        [int(token) for token in rng.integers(100, 4000, tokens)],
    )


def prompt_of(name: str) -> tuple[int, ...]:
    """The letters of the name between two tokens, so that no two prompts differ only in their last token."""
    return (7, *map(ord, name), 8)


def operations(name: str, readings: Readings, route: Route, **fields: object) -> Iterator[Entry]:
    """A request, its output and its teacher forcing. A request about another one is a control."""
    prompt = prompt_of(name)
    request = replace(Request(name, prompt, Sampling(max_tokens=TOKENS, logprobs=2), route=route), **fields)
    if request.about is not None and request.of_load:
        request = replace(request, purpose=Purpose.CONTROL)
    logprobs = tuple(map(TokenLogprob, readings.tokens, map(float, readings.served), map(float, readings.rival)))
    yield Sent(1.0, request, "load", "load", 1.0)
    choice = Choice(tuple(readings.tokens), finish_reason="length", logprobs=logprobs)
    yield Ended(2.0, name, Outcome.OK, status=200, choices=(choice,))
    yield from forcing(name, prompt, readings)


def forcing(of: str, prompt: tuple[int, ...], readings: Readings, owner: str | None = None) -> Iterator[Entry]:
    """The teacher forcing of an output under ``prompt``, which is the prompt of ``owner`` if one is given."""
    name = f"{of}-teacher" if owner is None else f"{of}-as-{owner}"
    sampling = Sampling(max_tokens=1, prompt_logprobs=2)
    request = Request(
        name, (*prompt, *readings.tokens), sampling, Route.PREFILL, purpose=Purpose.FORCING, about=of, owner=owner
    )
    forced = map(TokenLogprob, readings.tokens, map(float, readings.forced), map(float, readings.forced_rival))
    before = [None, *(TokenLogprob(token, -3.0, -1.0) for token in prompt[1:])]
    yield Sent(3.0, request, "load", "teacher", 3.0)
    yield Ended(4.0, name, Outcome.OK, status=200, choices=(Choice((1,)),), prompt_logprobs=(*before, *forced))


def with_sampling(history: History, request_id: str, **fields: Any) -> History:
    """The history with other sampling parameters of one request."""

    def changed(entry: Entry) -> Entry:
        if not isinstance(entry, Sent) or entry.request.request_id != request_id:
            return entry
        return replace(entry, request=replace(entry.request, sampling=replace(entry.request.sampling, **fields)))

    return History(tuple(map(changed, history.entries)))


def with_end(history: History, request_id: str, **fields: Any) -> History:
    """The history with another end of one request."""
    ended = (isinstance(e, Ended) and e.request_id == request_id for e in history.entries)
    pairs = zip(history.entries, ended, strict=True)
    return History(tuple(replace(entry, **fields) if own else entry for entry, own in pairs))


Damage = Callable[[str, Readings], None]


def run(
    errors: Errors,
    *,
    seed: int = 0,
    outputs: int = 64,
    controls: int = 32,
    damage: Damage = lambda _name, _readings: None,
    failed: int = 0,
) -> History:
    """A load, its controls, ``failed`` further controls, and all forcings. ``damage`` changes outputs of the load."""
    rng = np.random.default_rng(seed)
    entries: list[Entry] = []
    for number in range(outputs):
        readings = read(rng, errors)
        damage(f"load-{number}", readings)
        entries += operations(f"load-{number}", readings, Route.PROXY)
    for number in range(controls):
        name = f"control-{number}"
        entries += operations(name, read(rng, errors), Route.DECODE, about=f"load-{number % max(outputs, 1)}")
    for number in range(failed):
        entries += refused(f"refused-{number}", f"load-{number}")
    return History((*entries, RunEnded(9.0)))


def refused(name: str, of: str) -> Iterator[Entry]:
    """A control request that was refused."""
    yield Sent(
        1.0, Request(name, (1,), Sampling(), Route.DECODE, purpose=Purpose.CONTROL, about=of), "load", "control", 1.0
    )
    yield Ended(2.0, name, Outcome.FAIL, "503")
