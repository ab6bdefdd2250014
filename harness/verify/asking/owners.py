"""The search for the request whose KV a wrong output was made from. Pure functions of the history.

Every request that was sent before the wrong answer ended may be its owner. Forcing the answer under each of their
prompts costs a whole prefill each, so a cheaper question comes first.

1. A *supposition*: another's prompt with the suspect's own last token in place of its own, asked of the prefill server
   under the other's salt. Its blocks are in that server's prefix cache: less than a block is computed. Whoever's KV it
   was, the answer begins with the suspect's first token, or with one that is as good as it.
2. Whom that does not acquit is tried by teacher forcing, as the checker of ownership wants it; and so are a few who
   were acquitted: without them nobody knows how often an answer fits a prompt by chance.

Rule 1. Those come first who were in flight together with the suspect, the nearest in time first, and before all others
        anybody whose own answer begins as the suspect's does. Then those before, the latest first.
Rule 2. It goes in rounds, each larger than the one before, and who has been named is not asked about again.
Rule 3. An owner's prompt that is shorter than the suspect's gave whole blocks at most; the suspect's own tokens follow.
Rule 4. All suppositions and forcings of a run together cost SHARE of the load's engine tokens at most (LEAST, where the
        load is small). An output that the search did not come to is said to be so by the checker of ownership.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.history import History, Operation
from harness.scenario import TOP_LOGPROBS, Endpoint, Purpose, Request, Route, Sampling
from harness.verify.asking.reference import teacher_forcing

ROUNDS = (32, 96, 384, 1 << 20)
"""Suppositions for each suspect, round by round."""
SHARE = 0.1
"""Of the load's engine tokens, prompts and answers, which the search may cost."""
LEAST = 1 << 15
"""Engine tokens that it may cost in any case."""
_BY_CHANCE = 192
"""Forced tokens under prompts that are not the owner's: with none of them fitting, four in a row are no accident."""
_FEWEST_DECOYS = 3
"""Such prompts for each suspect: an answer that these go on to as well is one that any prompt may have."""

Tokens = tuple[int, ...]
Supposed = tuple[Operation, Tokens]
"""A possible owner, and the prompt that stands for its KV in the suspect's place."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSearch:
    """How suppositions are asked."""

    salt: str
    route: Route
    block_size: int | None = None
    """Tokens; None: only owners whose prompt is as long as the suspect's are thought of."""
    max_model_len: int | None = None

    def next_round(self, history: History, served: Sequence[Operation], suspects: Sequence[Operation]) -> list[Request]:
        """What is to be asked about the suspects next; nothing where all that can be has been."""
        asked = _Asked.of(history)
        pairs = {suspect.request.request_id: list(self._pairs(suspect, served)) for suspect in suspects}
        decoys = [
            max(_FEWEST_DECOYS, -(-_BY_CHANCE // max(len(_answer(suspect)) * len(suspects), 1))) for suspect in suspects
        ]
        asking = [
            self._forcings(suspect, pairs[suspect.request.request_id], asked, count)
            or self._suppositions(suspect, pairs[suspect.request.request_id], asked)
            for suspect, count in zip(suspects, decoys, strict=True)
        ]
        budget = budget_of(served) - sum(map(self._cost, asked.requests))
        return list(self._affordable((request for requests in asking for request in requests), budget))

    def _pairs(self, suspect: Operation, served: Sequence[Operation]) -> Iterator[Supposed]:
        """Every prompt once, the likeliest owner's first."""
        seen: set[Tokens] = set()
        for owner in candidates(suspect, served):
            prompt = supposed_prompt(owner, suspect, self.block_size)
            if prompt is not None and prompt not in seen:
                seen.add(prompt)
                yield owner, prompt

    def _suppositions(self, suspect: Operation, pairs: Sequence[Supposed], asked: "_Asked") -> list[Request]:
        """The next round's, of one suspect."""
        who = suspect.request.request_id
        new = [pair for pair in pairs if (who, pair[0].request.request_id) not in asked.firsts]
        done = len(pairs) - len(new)
        size = next((size for index, size in enumerate(ROUNDS) if sum(ROUNDS[: index + 1]) > done), 0)
        return [_supposition(suspect, owner, prompt, self.route) for owner, prompt in new[:size]]

    def _forcings(self, suspect: Operation, pairs: Sequence[Supposed], asked: "_Asked", decoys: int) -> list[Request]:
        """Its answer under the prompts that may be its owner's, and for comparison under some that are not."""
        who, answer = suspect.request.request_id, _answer(suspect)
        tried = [pair for pair in pairs if (who, pair[0].request.request_id) in asked.firsts]
        fitting = [pair for pair in tried if set(answer[:1]) & set(asked.firsts[who, pair[0].request.request_id])]
        new = [pair for pair in fitting if (who, pair[0].request.request_id) not in asked.forced]
        others = [pair for pair in tried if pair not in fitting][:decoys]
        chosen = [pair for pair in others if (who, pair[0].request.request_id) not in asked.forced]
        return [self._forcing(suspect, *pair) for pair in (*new, *chosen)] if new else []

    def _forcing(self, suspect: Operation, owner: Operation, prompt: Tokens) -> Request:
        who, whose, answer = suspect.request.request_id, owner.request.request_id, _answer(suspect)
        name = f"{who}-as-{whose}"
        room = len(answer) if self.max_model_len is None else self.max_model_len - 1 - len(prompt)
        forcing = teacher_forcing(who, prompt, answer[:room], name=name, salt=self.salt, route=self.route)
        return replace(forcing, owner=whose)

    def _affordable(self, wanted: Iterable[Request], budget: int) -> Iterator[Request]:
        for request in wanted:
            budget -= self._cost(request)
            if budget < 0:
                return
            yield request

    def _cost(self, request: Request) -> int:
        """Engine tokens; of a supposition those that its owner's cached blocks leave, where they are still cached."""
        if request.sampling.prompt_logprobs is not None or self.block_size is None:
            return len(request.prompt) + 1
        return (len(request.prompt) - 1) % self.block_size + 2


def budget_of(served: Sequence[Operation]) -> int:
    """Engine tokens that the search may cost (rule 4)."""
    return max(LEAST, int(SHARE * sum(len(o.prompt_token_ids or ()) + len(_answer(o)) for o in served)))


def candidates(suspect: Operation, served: Sequence[Operation]) -> list[Operation]:
    """Who may own the suspect's KV, the likeliest first (rule 1)."""
    others = [
        o
        for o in served
        if o.sent.at <= suspect.ended.at and o is not suspect and o.prompt_token_ids != suspect.prompt_token_ids
    ]
    return sorted(others, key=lambda other: _unlikeliness(suspect, other))


def supposed_prompt(owner: Operation, suspect: Operation, block_size: int | None) -> Tokens | None:
    """The prompt whose KV is what the suspect's would be if the owner's had been put in its place; None: none is."""
    mine, theirs = suspect.prompt_token_ids or (), owner.prompt_token_ids or ()
    taken = len(mine) - 1  # D computes the last token itself
    if len(theirs) < taken:
        taken = len(theirs) // block_size * block_size if block_size else 0
    if taken < 1 or theirs[:taken] == mine[:taken]:
        return None
    return (*theirs[:taken], *mine[taken:])


def _unlikeliness(suspect: Operation, other: Operation) -> tuple[bool, bool, bool, float]:
    alike = _answer(other)[:2] == _answer(suspect)[:2] and len(_answer(suspect)) > 1
    together = other.ended.at >= suspect.sent.at
    shorter = len(other.prompt_token_ids or ()) < len(suspect.prompt_token_ids or ()) - 1
    return not alike, shorter, not together, abs(other.sent.at - suspect.sent.at)


def _supposition(suspect: Operation, owner: Operation, prompt: Tokens, route: Route) -> Request:
    who, whose = suspect.request.request_id, owner.request.request_id
    return Request(
        f"{who}-like-{whose}",
        prompt,
        Sampling(max_tokens=1, logprobs=TOP_LOGPROBS, ignore_eos=True),
        route=route,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        cache_salt=owner.request.cache_salt,
        purpose=Purpose.OWNER_TEST,
        about=who,
        owner=whose,
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What has been asked so far; keys are suspect and supposed owner."""

    firsts: Mapping[Pair, Collection[int]]
    """Tokens that the supposed prompt may go on with."""
    forced: Collection[Pair]
    requests: Sequence[Request]

    @classmethod
    def of(cls, history: History) -> "_Asked":
        firsts: dict[Pair, Collection[int]] = {}
        forced: set[Pair] = set()
        requests = []
        for operation in history.operations():
            request = operation.request
            if request.about is None or request.owner is None:
                continue
            requests.append(request)
            pair = request.about, request.owner
            if request.purpose is Purpose.OWNER_TEST:
                firsts[pair] = _first_tokens(operation)
            else:
                forced.add(pair)
        return cls(firsts, forced, requests)


def _first_tokens(operation: Operation) -> Collection[int]:
    """The served one, and the runner-up: which of two as good as equal is served, chance says."""
    choice = next(iter(operation.ended.choices), None)
    if choice is None:
        return ()
    return {*choice.token_ids[:1], *(choice.logprobs[0].named if choice.logprobs and choice.logprobs[0] else ())}


def _answer(operation: Operation) -> Tokens:
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()
