"""Answers to the prompts of a made run, and the requests that verify some of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from harness.facts import Role
from harness.history import Choice, Ended, Entry, Named, Outcome, Sent, TokenLogprob, Usage
from harness.scenario import Condition, Purpose, Request, Route, Sampling

_NOISE = 0.01
"""Standard deviation of a log-probability, nats."""
_CONTROLS = 64
_PROMPT_TOKEN = TokenLogprob(0, -1.0, -2.0, 1)
_BATCH = 64
"""Requests of verification that are sent together."""


@dataclass
class Answers:
    """Makes answers of ``tokens`` tokens, and verifies a ``share`` of them; the first ``wrong`` of these are wrong."""

    rng: np.random.Generator
    tokens: int
    share: float
    wrong: int
    drawn: list[tuple[Sent, Ended, tuple[float, ...]]] = field(default_factory=list)
    """Outputs to be verified, with the log-probabilities of their tokens without noise."""

    def end(self, sent: Sent, at: float, urls: Mapping[Role, str]) -> Ended:
        """The answer to a request of the load."""
        right = tuple((-self.rng.exponential(0.3, self.tokens)).tolist())
        choice = self._choice(right, sent.request.request_id)
        first = self._first(choice.token_ids[0], right[0])
        steps = np.linspace(sent.at + 0.05, at, self.tokens).tolist()
        ended = Ended(
            at,
            sent.request.request_id,
            Outcome.OK,
            status=200,
            choices=(choice,),
            usage=Usage(len(sent.request.prompt), self.tokens),
            token_times=tuple(steps),
            tokens_per_chunk=(1,) * self.tokens,
            prefill_server=urls[Role.PREFILL],
            decode_server=urls[Role.DECODE],
            first_logprobs=first,
            prefill_first=tuple((token, value + 1e-3 * self._noise()) for token, value in first),
        )
        if self.rng.random() < self.share:
            self.drawn.append((sent, ended, right))
        return ended

    def verification(self, at: float) -> Iterator[Entry]:
        """Forcings of the drawn outputs, controls with their own forcings, and probes."""
        answered = [(self._forcing(*one, number), one) for number, one in enumerate(self.drawn)]
        yield from self._asked([(request, self._forced(request, *one)) for request, one in answered], at)
        at += 10.0 * (1 + len(answered) // _BATCH)
        controls = [self._control(*one) for one in self.drawn[:_CONTROLS]]
        yield from self._asked([(sent.request, ended) for sent, ended, _ in controls], at)
        forcings = [(self._forcing(*one, -1), one) for one in controls]
        yield from self._asked([(request, self._forced(request, *one)) for request, one in forcings], at + 20.0)
        yield from self._asked([self._probe(*one) for one in self.drawn], at + 40.0)

    def _asked(self, pairs: list[tuple[Request, Ended]], at: float) -> Iterator[Entry]:
        for start in range(0, len(pairs), _BATCH):
            batch = pairs[start : start + _BATCH]
            yield from (Sent(at, request, "verification", f"step-{start}", at) for request, _ in batch)
            yield from (replace(ended, at=at + 1.0) for _, ended in batch)
            at += 10.0

    def _choice(self, right: tuple[float, ...], name: str) -> Choice:
        tokens = tuple(self.rng.integers(300, 4000, self.tokens).tolist())
        noise = self.rng.normal(scale=_NOISE, size=(2, self.tokens)).tolist()
        logprobs = tuple(
            TokenLogprob(token, value + one, value - 1.0 + other, token + 1)
            for token, value, one, other in zip(tokens, right, *noise, strict=True)
        )
        return Choice(tokens, name, "length", logprobs)

    def _first(self, token: int, best: float) -> Named:
        return tuple((token + rank, best - rank + _NOISE * self._noise()) for rank in range(5))

    def _noise(self) -> float:
        return float(self.rng.normal())

    def _forcing(self, sent: Sent, ended: Ended, _right: tuple[float, ...], number: int) -> Request:
        prompt = sent.request.prompt
        whole = (*prompt, *ended.choices[0].token_ids) if isinstance(prompt, tuple) else ()
        name = f"forcing-of-{sent.request.request_id}"
        condition = Condition.SUSPECT if number % 4 == 0 else None
        return Request(
            name,
            tuple(token for token in whole if isinstance(token, int)),
            Sampling(1, prompt_logprobs=1),
            Route.PREFILL,
            purpose=Purpose.FORCING,
            about=sent.request.request_id,
            condition=condition,
            cache_salt="verify",
        )

    def _forced(self, request: Request, _sent: Sent, ended: Ended, right: tuple[float, ...]) -> Ended:
        is_wrong = self.wrong > 0 and not str(request.about).startswith("control")
        self.wrong -= is_wrong
        noise = self.rng.normal(scale=_NOISE, size=(2, self.tokens)).tolist()
        shift = 5.0 if is_wrong else 0.0
        rows = [
            TokenLogprob(token, value + one - shift, value - 1.0 + other, token + 1)
            for token, value, one, other in zip(ended.choices[0].token_ids, right, *noise, strict=True)
        ]
        before = (_PROMPT_TOKEN,) * (len(request.prompt) - self.tokens)
        return replace(_answered(request), prompt_logprobs=(*before, *rows), prompt_end=("x",) * self.tokens)

    def _control(self, sent: Sent, _ended: Ended, right: tuple[float, ...]) -> tuple[Sent, Ended, tuple[float, ...]]:
        name = f"control-of-{sent.request.request_id}"
        request = replace(
            sent.request,
            request_id=name,
            route=Route.DECODE,
            purpose=Purpose.CONTROL,
            about=sent.request.request_id,
            cache_salt="verify",
        )
        answer = replace(_answered(request), choices=(self._choice(right, name),))
        return replace(sent, request=request), answer, right

    def _probe(self, sent: Sent, _ended: Ended, _right: tuple[float, ...]) -> tuple[Request, Ended]:
        prompt = tuple(token for token in sent.request.prompt if isinstance(token, int))
        length = (len(prompt) - 1) // 16 * 16 + 1
        request = replace(
            sent.request,
            request_id=f"probe-of-{sent.request.request_id}",
            prompt=prompt[:length],
            sampling=Sampling(1, logprobs=2),
            route=Route.DECODE,
            server=0,
            purpose=Purpose.PROBE,
            about=sent.request.request_id,
            condition=Condition.PREFIX_CACHE,
        )
        choice = Choice((0,), "", "length", (_PROMPT_TOKEN,))
        return request, replace(_answered(request), choices=(choice,))


def _answered(request: Request) -> Ended:
    return Ended(0.0, request.request_id, Outcome.OK, status=200, usage=Usage(len(request.prompt), 1))
