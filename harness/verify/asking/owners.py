"""The search for the owner of a wrong output: the request whose KV it was made from. Pure.

Every request that was sent before the wrong answer ended may be the owner (candidates.py). Forcing the answer under a
candidate's prompt costs a whole prefill, so a cheaper test comes first.

1. An *owner test* sends the candidate's prompt, its last token replaced by the last token of the wrong output's prompt,
   to the prefill server under the candidate's salt. The server has the blocks of this prompt in its prefix cache and
   computes less than a block. If the wrong output was made from the candidate's KV, the answer begins with the wrong
   output's first token, or with a token that is as good, and its log-probabilities are those of the wrong output's
   first token (judging/first_token.py).
2. If the noise is known, the nearest few candidates whose log-probabilities are equal within it are asked to go on for
   as many tokens as the wrong output has, from the same cache (judging/continuations.py). Only where this does not tell
   is the output teacher-forced under the candidate's whole prompt. If the noise is not known, it is forced under the
   prompts of all candidates that begin alike.
3. The output is forced under the ends of some other prompts (decoys) and of its own: they show how often an answer fits
   a prompt by chance. The requests most like the best candidate (rivals) are tested beside it: if their prompts have
   the same log-probabilities, none of them can be told to be the owner.

Before that, the wrong output's *block question* is asked (owner_blocks.py): its whole blocks and one token more, sent
to the decode server alone, which has these blocks in its prefix cache. If the answer is wrong too, it takes the
output's place in the search, since all of its KV is the owner's even where the output's last block was its own. If it
is right, as after an eviction, the output itself is searched for.

The search goes in rounds, each larger than the one before, until an owner is named. If a budget limits it, it begins
with as many wrong outputs as it can pay to the end: so some owners are named, and not none.

All of it together costs no more than owner_budget.py and the ledger allow.
The checker of ownership reports the outputs for which no candidate was tested.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from harness.history import History, Operation
from harness.scenario import Request
from harness.verify.asking.candidates import Candidate, answer_of, with_prompts
from harness.verify.asking.options import Verification
from harness.verify.asking.owner_answers import OwnerAnswers
from harness.verify.asking.owner_blocks import BlockQuestions
from harness.verify.asking.owner_budget import affordable, budget_of, payable
from harness.verify.asking.owner_requests import cache_check, continuation, decoy, forcing, owner_test, phrases
from harness.verify.judging.continuations import as_forced, is_kept, rules_out
from harness.verify.judging.cost import prompt_lengths
from harness.verify.judging.first_token import MIN_COMMON, prefill_vector, vector_noise

ROUNDS = (32, 64, 128, 256, 1 << 20)
"""Owner tests for each wrong output, by round."""
_BY_CHANCE = 192
"""Tokens to be forced under prompts of decoys: if none of them fits, four fitting tokens in a row are no accident."""
_FEWEST_DECOYS = 3
"""Decoys for each wrong output: candidates that failed the owner test. An answer that fits them may fit any prompt."""
_LONGEST = 32
"""Tokens of the longest answer that is compared with a continuation: noise makes most longer ones part before they end,
so that they must be forced after all."""
_NEAREST = 3
"""Candidates to be looked at, by the distance of their first token's log-probabilities."""
_RIVALS = 8
"""Owner tests of the requests that are most like the best candidate."""


def next_round(  # noqa: PLR0913 - the last two are optional and keyword-only
    verification: Verification,
    history: History,
    served: Sequence[Operation],
    wrong: Sequence[Operation],
    *,
    left: float = math.inf,
    most: int | None = None,
) -> list[Request]:
    """The next requests about the wrong outputs; none if everything affordable was sent.

    ``left``: engine tokens that the search may still cost. ``most``: owner tests to be sent at once; None: no limit.
    """
    if not wrong:
        return []
    others = {one.request.request_id for one in wrong}
    noise = vector_noise(output for output in served if output.request.request_id not in others)
    questions = BlockQuestions.of(verification, history, noise)
    blocks = [(output, list(questions.to_ask(output))) for output in wrong]
    subjects = [questions.subject(output) for output, further in blocks if not further]
    search = _Search.of(verification, history, questions, subjects)
    shown: list[Request] = []
    tested: list[list[Request]] = []
    for subject in subjects:
        pairs = list(with_prompts(subject, served, verification.block_size))
        now = search.confirmation(subject, pairs)
        shown += now
        tested += [] if now else [search.tests(subject, pairs)]
    first, price = [*chain.from_iterable(further for _, further in blocks), *shown], search.price
    # A confirmation may end the search for an owner; more tests, of which there are many, may not.
    at_once = islice(payable(tested, left - sum(map(price, first)), price, search.cheap), most)
    return list(affordable((*first, *at_once), budget_of(served) - search.spent, price))


@dataclass(frozen=True, slots=True)
class _Search:
    """The search for the owners of some outputs, in view of the answers so far."""

    verification: Verification
    history: History
    questions: BlockQuestions
    answers: OwnerAnswers
    prompt_tokens: Mapping[str, int]
    """Tokens of every prompt, by request id."""
    decoys: int
    """How many decoys each output needs."""

    @classmethod
    def of(
        cls, verification: Verification, history: History, questions: BlockQuestions, subjects: Sequence[Operation]
    ) -> "_Search":
        answers = OwnerAnswers.of(history, subjects, questions.noise)
        shown = sum(map(len, map(answer_of, subjects[:1]))) * len(answers.others)
        needed = sum(map(len, map(answer_of, subjects))) or 1
        decoys = max(_FEWEST_DECOYS, math.ceil((_BY_CHANCE - shown) / needed))
        return cls(verification, history, questions, answers, prompt_lengths(history), decoys)

    @property
    def cheap(self) -> int:
        """The most engine tokens of an owner test that finds all whole blocks of its prompt in the cache."""
        return self.verification.block_size + 1

    @property
    def spent(self) -> int:
        return sum(map(self.price, (*self.answers.requests, *self.questions.asked)))

    def price(self, request: Request) -> int:
        """Engine tokens of a request."""
        tokens, owner_tokens = len(request.prompt), self.prompt_tokens.get(str(request.owner))
        cached = self.verification.in_cache(self.history, request, tokens, owner_tokens)
        return tokens - cached + request.sampling.max_tokens

    def tests(self, wrong: Operation, pairs: Sequence[Candidate]) -> list[Request]:
        """The owner tests of the next round for one wrong output."""
        who = wrong.request.request_id
        new = [pair for pair in pairs if (who, pair[1]) not in self.answers.tests]
        done = len(pairs) - len(new)
        size = next((size for index, size in enumerate(ROUNDS) if sum(ROUNDS[: index + 1]) > done), 0)
        tests = (owner_test(self.verification, wrong, *pair) for pair in new)
        # Dear ones, of short prompts and of those that the cache has lost, wait until there are no others.
        cheap = list(islice((test for test in tests if self.price(test) <= self.cheap), size))
        return cheap or [owner_test(self.verification, wrong, *pair) for pair in new[:size]]

    def confirmation(self, wrong: Operation, pairs: Sequence[Candidate]) -> list[Request]:
        """What shows whether candidates that passed the owner test are owners, with decoys and rivals."""
        who, by_vectors = wrong.request.request_id, self.answers.told_by_vectors(wrong)
        tested = [pair for pair in pairs if (who, pair[1]) in self.answers.tests]
        if by_vectors:
            tested = sorted(tested, key=lambda pair: self.answers.apart(wrong, pair[1]))
        fitting = [pair for pair in tested if self.answers.fits(wrong, pair[1])]
        fitting = fitting[:_NEAREST] if by_vectors else fitting
        shown = [(pair, request) for pair in fitting for request in self._under(wrong, pair, by_vectors=by_vectors)]
        if not shown:
            return []
        best, prompts = shown[0][0], {pair[1] for pair in fitting}
        others = [pair for pair in tested if pair[1] not in prompts][: self.decoys]
        return [
            *(request for _, request in shown),
            *self._decoys(wrong, others, best, by_vectors=by_vectors),
            *self._rivals(wrong, best, pairs),
        ]

    def _under(self, wrong: Operation, pair: Candidate, *, by_vectors: bool) -> Iterator[Request]:
        """The next request that shows the output under a candidate's prompt; none if that is known."""
        answer, key = answer_of(wrong), (wrong.request.request_id, pair[1])
        if key in self.answers.forced:
            return
        short = 1 < len(answer) <= min(_LONGEST, self.verification.room(pair[1]))
        continued = self.answers.continued.get(key)
        if continued is None and by_vectors and short and len(prefill_vector(pair[0])) >= MIN_COMMON:
            yield continuation(self.verification, wrong, *pair)
            yield cache_check(self.verification, wrong, pair[0])
        elif continued is None or not self._told(wrong, pair[0], continued):
            yield forcing(self.verification, wrong, *pair)

    def _told(self, wrong: Operation, owner: Operation, continued: Operation) -> bool:
        """Whether a continuation shows that the wrong output continues its prompt, or that it does not."""
        answer, check = answer_of(wrong), (wrong.request.request_id, owner.prompt_token_ids or ())
        vectors = [self.answers.tests[check].vector] if check in self.answers.tests else []
        kept = is_kept(owner, vectors, self.answers.noise)
        fits = as_forced(answer, continued) is not None
        return kept and (fits or rules_out(answer, continued, self.questions.near))

    def _decoys(
        self, wrong: Operation, others: Sequence[Candidate], best: Candidate, *, by_vectors: bool
    ) -> Iterator[Request]:
        who = wrong.request.request_id
        for owner, prompt in others:
            if (who, owner.request.request_id) in self.answers.others:
                continue
            yield (
                decoy(self.verification, wrong, owner.request.request_id, prompt, best[1])
                if by_vectors
                else forcing(self.verification, wrong, owner, prompt)
            )
        output = str(wrong.request.about)
        if not self.questions.own_prompt_forced(wrong) and (who, output) not in self.answers.others:
            yield decoy(self.verification, wrong, output, wrong.prompt_token_ids or (), best[1])

    def _rivals(self, wrong: Operation, best: Candidate, pairs: Sequence[Candidate]) -> list[Request]:
        """The tests of the candidates whose prompts have the most tokens of the best one's, if they were not sent yet.

        Short ones, whose tests are dear, count only if they have a form of words in common with it.
        """
        tokens, common = set(best[1]), phrases(best[1])
        alike = sorted(pairs, key=lambda pair: -len(tokens & set(pair[1])) / len(tokens | set(pair[1])))
        tests = ((owner_test(self.verification, wrong, *pair), pair) for pair in alike if pair[0] is not best[0])
        rivals = (
            row
            for row in tests
            if self.price(row[0]) <= self.cheap or common & phrases(row[1][0].prompt_token_ids or ())
        )
        who = wrong.request.request_id
        return [test for test, pair in islice(rivals, _RIVALS) if (who, pair[1]) not in self.answers.tests]
