"""The search for the owner of a wrong output: the request whose KV it was made from. Pure.

Every request that was sent before the wrong answer ended may be the owner. Forcing the answer under a candidate's
prompt costs a whole prefill, so a cheaper test comes first.

1. An *owner test* sends the candidate's prompt, its last token replaced by the last token of the wrong output's prompt,
   to the prefill server under the candidate's salt. The server has the blocks of this prompt in its prefix cache and
   computes less than a block. If the wrong output was made from the candidate's KV, the answer begins with the wrong
   output's first token, or with a token that is as good, and its log-probabilities are those of the wrong output's
   first token (judging/first_token.py).
2. Candidates that pass are tested by teacher forcing, which the checker of ownership needs: the nearest few whose
   log-probabilities are equal within the noise, or all that begin alike if the noise is not known. Some others (decoys)
   are forced too: they show how often an answer fits a prompt by chance. The requests most like the best candidate
   (rivals) are tested beside it: if their prompts have the same log-probabilities, none of them can be told to be the
   owner.

Before that, the wrong output's *block question* is asked (owner_blocks.py): its whole blocks and one token more, sent
to the decode server alone, which has these blocks in its prefix cache. If the answer is wrong too, it takes the
output's place in the search, since all of its KV is the owner's even where the output's last block was its own. If it
is right, as after an eviction, the output itself is searched for.

Candidates whose own answer begins like the wrong output come first. Next come requests that were in flight together
with it, the nearest in time first, then earlier requests, the latest first. The search goes in rounds, each larger than
the one before, until an owner is named.

A candidate with a shorter prompt than the wrong output can have provided whole blocks only, followed by tokens of the
wrong output's prompt.

All owner tests and forcings of a run together cost at most SHARE of the load's engine tokens, or LEAST if that is more,
and no more than the ledger has left (ledger.py).
The checker of ownership reports the outputs for which no candidate was tested.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from harness.history import History, Operation
from harness.scenario import Endpoint, Purpose, Request, Sampling
from harness.verify.asking.options import Verification
from harness.verify.asking.outputs import tokens_of
from harness.verify.asking.owner_blocks import BlockQuestions
from harness.verify.asking.requests import Tokens, teacher_forcing
from harness.verify.judging.first_token import MIN_COMMON, Vector, distance, served_vector, vector_noise
from harness.verify.judging.owner_tests import is_block_question

ROUNDS = (32, 96, 384, 1 << 20)
"""Owner tests for each wrong output, by round."""
SHARE = 0.1
"""Share of the load's engine tokens (prompts and answers) that the search may cost."""
LEAST = 1 << 15
"""Engine tokens that the search may cost in any case."""
_BY_CHANCE = 192
"""Tokens to be forced under prompts of decoys: if none of them fits, four fitting tokens in a row are no accident."""
_FEWEST_DECOYS = 3
"""Decoys for each wrong output: candidates that failed the owner test. An answer that fits them may fit any prompt."""
_FIRST_LOGPROBS = 5
"""Log-probabilities of an owner test's token. Twenty tell hardly more."""
_NEAREST = 3
"""Candidates to be forced, by the distance of their first token's log-probabilities."""
_AT_ONCE = 4
"""Wrong outputs whose owners are searched for at once, if a budget limits the search."""
_RIVALS = 8
"""Owner tests of the requests that are most like the best candidate."""

Candidate = tuple[Operation, Tokens]
"""A possible owner, and the prompt of ``owner_prompt``."""


def next_round(
    verification: Verification, history: History, served: Sequence[Operation], wrong: Sequence[Operation]
) -> list[Request]:
    """The next requests about the wrong outputs; none if everything affordable was sent."""
    if not wrong:
        return []
    questions = BlockQuestions.of(verification, history)
    first = [request for output in wrong for request in questions.to_ask(output)]
    subjects = [questions.subject(output) for output in wrong]
    noise = vector_noise(output for output in served if output not in wrong)
    asked = _Asked.of(history, subjects, noise)
    forced: list[Request] = []
    tested: list[list[Request]] = []
    for subject in subjects if not first else ():
        pairs = list(_candidates(subject, served, verification.block_size))
        decoys = max(_FEWEST_DECOYS, -(-_BY_CHANCE // max(len(_answer(subject)) * len(wrong), 1)))
        now = _forcings(verification, subject, pairs, asked, decoys)
        forced += now
        tested += [] if now else [_tests(verification, subject, pairs, asked)]
    spent = sum(_cost(request, verification.block_size) for request in (*asked.requests, *questions.asked))
    # A forcing may end the search for an owner; more tests, of which there are many, may not.
    now_tested = chain.from_iterable(_at_once(verification, history, tested))
    return list(_affordable((*first, *forced, *now_tested), budget_of(served) - spent, verification.block_size))


def _at_once(
    verification: Verification, history: History, tested: Sequence[Sequence[Request]]
) -> Sequence[Sequence[Request]]:
    """All owner tests; if a budget limits them, those of a few wrong outputs, so that some owners are found."""
    if verification.ledger(history).unlimited:
        return tested
    # Earlier rounds are smaller.
    return sorted(filter(None, tested), key=len)[:_AT_ONCE]


def _candidates(wrong: Operation, served: Sequence[Operation], block_size: int) -> Iterator[Candidate]:
    """Every different prompt once, that of the likeliest owner first."""
    seen: set[Tokens] = set()
    for owner in candidates(wrong, served):
        prompt = owner_prompt(owner, wrong, block_size)
        if prompt is not None and prompt not in seen:
            seen.add(prompt)
            yield owner, prompt


def _tests(verification: Verification, wrong: Operation, pairs: Sequence[Candidate], asked: "_Asked") -> list[Request]:
    """The owner tests of the next round for one wrong output."""
    who = wrong.request.request_id
    new = [pair for pair in pairs if (who, pair[1]) not in asked.tests]
    done = len(pairs) - len(new)
    size = next((size for index, size in enumerate(ROUNDS) if sum(ROUNDS[: index + 1]) > done), 0)
    return [_owner_test(verification, wrong, owner, prompt) for owner, prompt in new[:size]]


def _forcings(
    verification: Verification, wrong: Operation, pairs: Sequence[Candidate], asked: "_Asked", decoys: int
) -> list[Request]:
    """The answer forced under the prompts of candidates that passed the owner test, and under those of some decoys."""
    who = wrong.request.request_id
    tested = [pair for pair in pairs if (who, pair[1]) in asked.tests]
    if asked.noise is not None and len(own := served_vector(wrong)) >= MIN_COMMON:
        tested = sorted(tested, key=lambda pair: _apart(own, asked.tests[who, pair[1]].vector))
        near = (pair for pair in tested if distance(own, asked.tests[who, pair[1]].vector) <= asked.noise)
        fitting = list(near)[:_NEAREST]
    else:
        fitting = [pair for pair in tested if set(_answer(wrong)[:1]) & set(asked.tests[who, pair[1]].first)]
    new = [pair for pair in fitting if (who, pair[1]) not in asked.forced]
    if not new:
        return []
    others = [pair for pair in tested if pair not in fitting][:decoys]
    chosen = [pair for pair in others if (who, pair[1]) not in asked.forced]
    return [
        *(_forcing(verification, wrong, *pair) for pair in (*new, *chosen)),
        *(_owner_test(verification, wrong, *pair) for pair in _rivals(who, new[0], pairs, asked)),
    ]


def _apart(own: Vector, other: Vector) -> tuple[float, int]:
    """The distance of two vectors; those that have too few common tokens by how many they have."""
    return distance(own, other), -len(own.keys() & other.keys())


def _rivals(who: str, best: Candidate, pairs: Sequence[Candidate], asked: "_Asked") -> list[Candidate]:
    """The candidates whose prompts have the most tokens of the best candidate's, if they were not tested yet."""
    tokens = set(best[1])
    likeness = {pair[1]: len(tokens & set(pair[1])) / len(tokens | set(pair[1])) for pair in pairs}
    alike = sorted(pairs, key=lambda pair: -likeness[pair[1]])
    nearest = [pair for pair in alike if pair[0] is not best[0]][:_RIVALS]
    return [pair for pair in nearest if (who, pair[1]) not in asked.tests]


def _forcing(verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens) -> Request:
    who, whose = wrong.request.request_id, owner.request.request_id
    answer = _answer(wrong)[: max(0, verification.room(prompt) - 1)]
    name, salt, route = f"{who}-as-{whose}", verification.how.salt, verification.forcing_route
    return replace(teacher_forcing(who, prompt, answer, name=name, salt=salt, route=route), owner=whose)


def _affordable(wanted: Iterable[Request], budget: int, block_size: int) -> Iterator[Request]:
    for request in wanted:
        budget -= _cost(request, block_size)
        if budget < 0:
            return
        yield request


def _cost(request: Request, block_size: int) -> int:
    """Engine tokens of a request. An owner test finds the candidate's blocks cached and computes only the rest."""
    if is_block_question(request):
        return 1 + request.sampling.max_tokens
    if request.purpose is Purpose.OWNER_TEST:
        return (len(request.prompt) - 1) % block_size + 2
    return len(request.prompt) + 1


def budget_of(served: Sequence[Operation]) -> int:
    """Engine tokens that the search may cost."""
    return max(LEAST, int(SHARE * sum(map(tokens_of, served))))


def candidates(wrong: Operation, served: Sequence[Operation]) -> list[Operation]:
    """Requests that may own the KV of a wrong output, the likeliest first."""
    others = [
        o
        for o in served
        if o.sent.at <= wrong.ended.at and o is not wrong and o.prompt_token_ids != wrong.prompt_token_ids
    ]
    return sorted(others, key=lambda other: _unlikeliness(wrong, other))


def owner_prompt(owner: Operation, wrong: Operation, block_size: int) -> Tokens | None:
    """The prompt that the wrong output answers if it was made from the owner's KV; None if there is no such prompt."""
    mine, theirs = wrong.prompt_token_ids or (), owner.prompt_token_ids or ()
    # Decode computes the last token itself.
    taken = len(mine) - 1
    if len(theirs) < taken:
        taken = len(theirs) // block_size * block_size
    if taken < 1 or theirs[:taken] == mine[:taken]:
        return None
    return (*theirs[:taken], *mine[taken:])


def _unlikeliness(wrong: Operation, other: Operation) -> tuple[bool, bool, bool, float]:
    alike = _answer(other)[:2] == _answer(wrong)[:2] and len(_answer(wrong)) > 1
    together = other.ended.at >= wrong.sent.at
    shorter = len(other.prompt_token_ids or ()) < len(wrong.prompt_token_ids or ()) - 1
    return not alike, shorter, not together, abs(other.sent.at - wrong.sent.at)


def _owner_test(verification: Verification, wrong: Operation, owner: Operation, prompt: Tokens) -> Request:
    who, whose = wrong.request.request_id, owner.request.request_id
    return Request(
        f"{who}-like-{whose}",
        prompt,
        Sampling(max_tokens=1, logprobs=_FIRST_LOGPROBS, ignore_eos=True),
        route=verification.forcing_route,
        endpoint=Endpoint.COMPLETIONS,
        stream=False,
        cache_salt=owner.request.cache_salt,
        purpose=Purpose.OWNER_TEST,
        about=who,
        owner=whose,
    )


@dataclass(frozen=True, slots=True)
class _Tested:
    """The answer to an owner test."""

    first: Collection[int]
    """The tokens with which it may begin."""
    vector: Vector


@dataclass(frozen=True, slots=True)
class _Asked:
    """The owner tests and forcings so far; keys are the wrong output's request id and the owner's prompt."""

    tests: Mapping[tuple[str, Tokens], _Tested]
    forced: Collection[tuple[str, Tokens]]
    requests: Sequence[Request]
    noise: float | None
    """The limit of noise of first tokens' log-probabilities, nats; None if it is not known."""

    @classmethod
    def of(cls, history: History, wrong: Sequence[Operation], noise: float | None) -> "_Asked":
        lengths = {one.request.request_id: len(one.prompt_token_ids or ()) for one in wrong}
        asked = [o for o in history.operations() if o.request.about is not None and o.request.owner is not None]
        tests, forced = dict[tuple[str, Tokens], _Tested](), set[tuple[str, Tokens]]()
        for one in asked:
            who, prompt = str(one.request.about), one.prompt_token_ids or ()
            if one.request.purpose is Purpose.OWNER_TEST:
                tests[who, prompt] = _Tested(_first_tokens(one), served_vector(one))
            else:
                forced.add((who, prompt[: lengths.get(who)]))
        return cls(tests, forced, [o.request for o in asked], noise)


def _first_tokens(operation: Operation) -> Collection[int]:
    """The served token and the runner-up: if two are equally good, chance decides which one is served."""
    choice = next(iter(operation.ended.choices), None)
    if choice is None:
        return ()
    return {*choice.token_ids[:1], *(choice.logprobs[0].named if choice.logprobs and choice.logprobs[0] else ())}


def _answer(operation: Operation) -> Tokens:
    return operation.ended.choices[0].token_ids if operation.ended.choices else ()
