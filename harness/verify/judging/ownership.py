"""The owner of a wrong output: the request whose KV it was made from.

A named owner is a security finding, so it needs evidence with no other explanation. There are four kinds, and one more
that goes with them.

1. The reported prompt. The server reports the prompt that it received. If this is another request's prompt, the whole
   answer of that request was delivered to this one. If it is any other wrong prompt, KV is not the cause.
2. The first token's vector (first_token.py). The decode server pulls the KV of all prompt tokens but the last one,
   which it computes itself. If it pulled the KV of request B, request A's answer continues B's prompt with the last
   token replaced by A's last token. An owner test asks a prefill server for the log-probabilities of the first token
   of this prompt. If B is the owner, they are those with which A's answer began, but for noise; those of all other
   candidates, and of A's own prompt, are far away. The tokens behind the first one must all continue B's prompt as
   well, and add to the evidence as in kind 3.
3. The output forced under another prompt. The answer is teacher-forced under the prompt of kind 2; if B is the owner,
   no token has regret. The same is known without forcing if a prefill server answers this prompt with the output's
   tokens (continuations.py). This is the only evidence where servers tell no vectors; where they do and the vector does
   not fit, it is none.
4. A shared run. A run of tokens is also in the answer of a request that has another prompt and a right answer. If the
   first token is wrong, and the owner's vectors are known and do not fit, it shows no owner.

To kinds 2 and 3 belongs what the log-probabilities of the later tokens tell (later_tokens.py). Prompts that continue
with the same words seldom give these words the same numbers. The numbers are known of the answer as served, and under
each prompt for which it was forced or continued.

- Against: if any token, also one that shows nothing by itself, has other numbers than under a prompt, beyond the noise
  that right outputs have, the answer was not made from that prompt. So is a prompt ruled out that continues otherwise.
- For: a token that all prompts continue with is informative nevertheless if its numbers agree with the candidate's, and
  those under all other prompts are far away. It counts by the less probable of the two: that another prompt would go on
  with this token, and that it would give it these numbers. They are not multiplied, since the two may hang together.
- Neither: a candidate whose first vector is within the noise, too, must have been ruled out. If its later tokens agree
  as well, or if nobody looked at them, the owner is unknown. So prompts that share their whole ending, and are alike in
  all that an answer shows, accuse none of their requests.

If only whole blocks are B's, and a partial last one is A's own, no prompt repeats what A's answer was made from. But
the decode server's prefix cache keeps these blocks for A's prompt. So they are asked again: A's whole blocks and one
token more, sent to that server alone (the *block question*). If its answer is not the one of this prompt
(block_questions.py), it takes the place of A's answer in kinds 2 and 3: of this question, every token of KV is B's.

All kinds but the first also occur by chance: real language has loops ("1. 1. 1. ..."), lists and boilerplate, in which
many prompts end. So only *informative* tokens count. A token is not informative if

- it is the best token, or nearly, under the request's own prompt or any other prompt that is not the owner's, and its
  numbers show nothing either;
- the answer repeats itself there: the same token followed the token before it earlier in the answer. What repeats is
  not independent of what it repeats, the numbers included;
- (kind 4) it follows the same two tokens in a right answer to a third prompt.

The numbers of a token show nothing if it followed the same two tokens earlier in the candidate's prompt: many prompts
end in the same loops, and give them nearly the same numbers.

The probability of an informative token is the highest one that the other prompts give it, and at least the share of
tokens that fit by chance in the whole run; or that of its numbers, if that is lower. The probability of the answer is
the product over these tokens, times that of the vector (kind 2), or times the number of requests (or positions) that
were compared: in kind 2, too, if vectors of other prompts are so near that they do not tell. An owner is named if the
probability is at most MAX_CHANCE, if at least MIN_INFORMATIVE tokens are informative (in kind 2 the vector counts as
one if it tells, and is enough if it alone is so improbable), and if at least _MIN_OTHERS other prompts were tested
(kinds 2 and 3). Among these are the prompts that are most like the owner's.

The other prompts under which an answer is forced are the request's own and those of *decoys*. For kind 2, the end of
each prompt is enough: its first token and the last few dozen. Loops, lists and boilerplate are continued from the end
of a prompt, whatever came before it. So they fit an end as well as the whole prompt, and an end tells less about how
to go on than the whole prompt does, so that more answers fit it. The exception is an answer that the beginning of a
prompt asks for, such as instructions that all requests share. If what precedes a decoy's end has eight tokens in a
row that the owner's prompt has too, the answer is forced under the whole of it. Kind 3 has no evidence but tokens,
and needs whole prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from harness.history import History, Operation
from harness.verify.judging.chance_match import MAX_CHANCE, MIN_INFORMATIVE, ChanceMatch, chance_match, repetitions
from harness.verify.judging.compared import RIGHT, Compared, Match
from harness.verify.judging.first_token import vector_noise
from harness.verify.judging.forcing import ForcedTokens, forcings
from harness.verify.judging.later_tokens import LaterTokens
from harness.verify.judging.owner_tests import OwnerTests, VectorFit
from harness.verify.judging.shared_runs import AnswerIndex
from harness.verify.judging.under_prompts import UnderPrompt

_MIN_OTHERS = 3
"""Prompts other than the owner's (the request's own included) under which the answer must have been forced, or under
whose ends. Fewer do not show whether any prompt continues like this."""


@dataclass(frozen=True, slots=True)
class Leak:
    """A wrong output and its owner."""

    request_id: str
    owner: str
    text: str
    first: int | None
    """The first wrong token of the output, counted from 0; None if it is not known."""


def find_leaks(history: History, compared: Sequence[Compared], near: float) -> tuple[Leak, ...]:
    """The wrong outputs whose owner is known, in the order sent.

    ``near``: nats of regret up to which a token counts as the best one under a prompt.
    """
    wrong = [one for one in compared if one.match is Match.MISMATCH]
    if not wrong:
        return ()
    operations = {o.request.request_id: o for o in history.operations()}
    right = [operations[one.request_id] for one in compared if one.match in RIGHT]
    # The outputs that were verified are the strangest; and the search for owners has its noise from all of these, too.
    served = [operations[one.request_id] for one in compared if one.match is not Match.MISMATCH]
    later = LaterTokens.of(served, forcings(history))
    tests, answers = OwnerTests.of(history, operations, near, vector_noise(served), later), AnswerIndex.of(right)
    found = (
        _by_reported_prompt(one, operations)
        if _received_another_prompt(operations[one.request_id])
        else _by_answers(one, operations, tests) or _by_shared_run(one, operations, tests, answers)
        for one in wrong
    )
    return tuple(leak for leak in found if leak is not None)


def _received_another_prompt(operation: Operation) -> bool:
    reported = operation.ended.prompt_token_ids
    return reported is not None and reported != operation.prompt_token_ids


def _by_reported_prompt(wrong: Compared, operations: Mapping[str, Operation]) -> Leak | None:
    """The leak of a request whose prompt the server reports; None if it reports a part of the output's own prompt."""
    operation = operations[wrong.request_id]
    reported, own = operation.ended.prompt_token_ids or (), operation.prompt_token_ids or ()
    if not reported or reported in (own[: len(reported)], own[-len(reported) :]):
        return None
    owner = next(
        (name for name, one in operations.items() if one.request.of_load and one.prompt_token_ids == reported), None
    )
    if owner is None:
        return None
    text = f"was given {owner}'s answer: the server reports that request's prompt of {len(reported)} tokens"
    return Leak(wrong.request_id, owner, text, wrong.first)


def _by_answers(wrong: Compared, operations: Mapping[str, Operation], tests: OwnerTests) -> Leak | None:
    """The owner by the answer itself, or by that to its block question."""
    asked = tests.questions.get(wrong.request_id)
    by_answer = _by_forcing(wrong, operations[wrong.request_id], tests)
    if by_answer is not None or asked is None or not tests.is_wrong(asked):
        return by_answer
    return _by_forcing(wrong, asked, tests)


def _by_forcing(wrong: Compared, operation: Operation, tests: OwnerTests) -> Leak | None:
    """The owner by kinds 2 and 3. ``operation``: the wrong output, or its block question."""
    best = tests.best(operation)
    if best is None or best.owner is None or best.best_tokens(tests.near) < len(best.tokens.regret):
        return None
    if len(tests.others(operation.request.request_id, best.owner)) < _MIN_OTHERS:
        return None
    if best.prompt in (not_its := tests.ruled_out(operation)) or tests.rivals(operation, best.owner) - not_its:
        return None
    fit = tests.fit(operation, best.owner, best.prompt)
    evidence = _tokens_alone(operation, best, tests) if fit is None else _with_vector(operation, best, tests, fit)
    if not evidence:
        return None
    again = "" if operation.request.of_load else ", as its blocks in the decode server's prefix cache show"
    return Leak(
        wrong.request_id,
        best.owner,
        f"was answered with {best.owner}'s KV{again}: {evidence}; {wrong.text}",
        wrong.first,
    )


def _with_vector(operation: Operation, best: UnderPrompt, tests: OwnerTests, fit: VectorFit) -> str:
    """The evidence of kind 2, in words; empty if it is too little."""
    others = tests.others(operation.request.request_id, best.owner)
    match = _match(operation, best, tests, others, skipped=1)
    tested = max(fit.others, tests.tested.get(operation.request.request_id, 0))
    # If first tokens do not tell, the later ones of any prompt that was tested might have fitted.
    chance = match.probability * (fit.chance if fit.chance < 1 else tested)
    if not fit.fits or fit.others < _MIN_OTHERS or chance > MAX_CHANCE:
        return ""
    if fit.chance > MAX_CHANCE and match.informative + (fit.chance < 1) < MIN_INFORMATIVE:
        return ""
    apart = f"by {fit.nearest:.1g} nats or more" if isfinite(fit.nearest) else "in their tokens"
    return (
        f"its first token's log-probabilities are those of that request's prompt within {fit.apart:.1g} nats, those of "
        f"{fit.others} other prompts differ {apart}, and all of its {len(best.tokens.regret)} tokens continue that "
        f"prompt{_with_numbers(operation, tests)} (probability by chance: {chance:.0e})"
    )


def _with_numbers(operation: Operation, tests: OwnerTests) -> str:
    """That the log-probabilities of all tokens agree, in words; empty if they are not known."""
    known = tests.later is not None and any(operation.ended.choices[0].logprobs)
    return " with the log-probabilities that it gives them" if known else ""


def _tokens_alone(operation: Operation, best: UnderPrompt, tests: OwnerTests) -> str:
    """The evidence of kind 3, in words; empty if it is too little."""
    others = tests.others(operation.request.request_id, best.owner, whole=True)
    match = _match(operation, best, tests, others, skipped=0)
    chance = max(len(others), tests.tested.get(operation.request.request_id, 0)) * match.probability
    if len(others) < _MIN_OTHERS or match.informative < MIN_INFORMATIVE or chance > MAX_CHANCE:
        return ""
    return (
        f"all of its {len(best.tokens.regret)} tokens continue that request's prompt, and {match.informative} of them "
        f"continue none of {len(others)} other prompts (probability by chance: {chance:.0e})"
    )


def _match(
    operation: Operation, best: UnderPrompt, tests: OwnerTests, others: Sequence[ForcedTokens], *, skipped: int
) -> ChanceMatch:
    """How likely the answer fits by chance, without its first ``skipped`` tokens."""
    answer = operation.ended.choices[0].token_ids[: len(best.tokens.regret)]
    return chance_match(
        answer[skipped:],
        [one.without(skipped) for one in others],
        near=tests.near,
        least=tests.share,
        uninformative={index - skipped for index in repetitions(answer) if index >= skipped},
        numbers=tests.chances_of_numbers(operation, best, others)[skipped:],
    )


def _by_shared_run(
    wrong: Compared, operations: Mapping[str, Operation], tests: OwnerTests, right: AnswerIndex
) -> Leak | None:
    operation = operations[wrong.request_id]
    found = right.owner_of(operation, wrong.first or 0, tests.others(wrong.request_id, None), tests.near)
    asked = (operation, tests.questions.get(wrong.request_id))
    if found is None or (wrong.first == 0 and any(one and tests.contradicted(one, found.owner) for one in asked)):
        return None
    text = (
        f"was answered with {found.owner}'s KV: {found.tokens} tokens in a row are from that request's answer "
        f"(probability by chance: {found.chance:.0e}); {wrong.text}"
    )
    return Leak(wrong.request_id, found.owner, text, wrong.first)
