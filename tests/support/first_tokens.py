"""Histories in which prefill and decode both report the log-probabilities of each request's first output token."""

import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.history import Choice, Ended, Entry, History, Named, Operation, Outcome, Sent
from harness.scenario import Purpose, Request, Route, Sampling

TOKENS = 5
NOTHING: Mapping[str, float] = {}


def vector(name: str) -> Named:
    """Five tokens and their log-probabilities, other numbers for every name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return tuple((token, -0.5 - token % 100 - float(rng.random())) for token in range(100, 100 + TOKENS))


def moved(named: Named, by: float) -> Named:
    """The vector with its first log-probability moved. So the standard deviation of the differences is 0.4 of it."""
    (token, value), *rest = named
    return ((token, value + by), *rest)


def served(name: str, *, own: Named, said: Named, at: float = 1.0, **fields: Any) -> Iterator[Entry]:
    """A request through the proxy; ``own``: what decode reported of the first token, ``said``: what prefill did."""
    prompt = (*name.encode(), *range(1000, 1030 - len(name)))
    request = replace(Request(name, prompt, Sampling(5, logprobs=5), Route.PROXY), **fields)
    yield Sent(at, request, "load", "load", at)
    choice = Choice((100, 2, 3, 4, 5), finish_reason="length")
    yield Ended(at + 0.5, name, Outcome.OK, status=200, choices=(choice,), first_logprobs=own, prefill_first=said)


def load(count: int, apart: Mapping[str, float] = NOTHING) -> History:
    """Requests ``r0``, ``r1``, ... of 30 prompt tokens; ``apart``: by how many nats a first token differs."""
    names = [f"r{number}" for number in range(count)]
    entries = (served(one, own=moved(vector(one), apart.get(one, 0.0)), said=vector(one)) for one in names)
    return History(tuple(entry for pair in entries for entry in pair))


def with_first_tokens(history: History, apart: Mapping[str, float] = NOTHING) -> History:
    """The history with what both servers report of the load's first tokens."""
    ids = {o.request.request_id for o in history.operations(route=Route.PROXY) if o.request.of_load}
    return History(tuple(_reported(entry, ids, apart) for entry in history.entries))


def _reported(entry: Entry, ids: Collection[str], apart: Mapping[str, float]) -> Entry:
    if not isinstance(entry, Ended) or entry.request_id not in ids:
        return entry
    said = vector(entry.request_id)
    return replace(entry, first_logprobs=moved(said, apart.get(entry.request_id, 0.0)), prefill_first=said)


def repeated(history: History, names: Iterable[str], apart: Mapping[str, float] = NOTHING) -> History:
    """The history with a control request for the prompt of each name, which reports two tokens. None is forced."""
    every = {o.request.request_id: o for o in history.operations()}
    more = (entry for name in names for entry in _control(every[name], apart.get(name, 0.0)))
    return History((*history.entries, *more))


def _control(subject: Operation, by: float) -> Iterator[Entry]:
    who = subject.request.request_id
    sampling = Sampling(5, logprobs=2, ignore_eos=True)
    asked = Request(f"{who}-again", subject.request.prompt, sampling, Route.DECODE, purpose=Purpose.CONTROL, about=who)
    yield Sent(5.0, asked, "verification", "control", 5.0)
    first = moved(vector(who)[:2], by)
    yield Ended(
        6.0, asked.request_id, Outcome.OK, status=200, choices=(Choice((100, 2, 3, 4, 5)),), first_logprobs=first
    )
