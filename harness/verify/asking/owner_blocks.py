"""The whole blocks of a wrong output, asked again where the decode server keeps them. Pure.

A *block question* is the prompt's whole blocks and one token more, sent to the decode server that served the output,
under its own ``cache_salt``. The server finds the blocks in its prefix cache, as they were when the output was made,
and answers from them: if they are another request's, so is the answer. Whether it is wrong shows when the prefill
server is asked for the first token of the same prompt, whose blocks it has in its own cache: for two engine tokens (the
*own test*). Where first tokens do not tell, the answer is teacher-forced under its own prompt, and counts as wrong if
that shows regret beyond the noise. Otherwise the blocks are right, or were evicted and computed again.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.facts import Role, serving
from harness.history import History, Operation
from harness.scenario import Endpoint, Purpose, Request, Route, Sampling
from harness.verify.asking.candidates import answer_of
from harness.verify.asking.kept import kept_by_decode
from harness.verify.asking.options import Verification
from harness.verify.asking.outputs import through_proxy
from harness.verify.asking.owner_requests import owner_test
from harness.verify.asking.requests import Tokens, teacher_forcing
from harness.verify.judging import near_regret
from harness.verify.judging.block_questions import block_questions, blocks_are_wrong, is_block_question
from harness.verify.judging.first_token import MIN_COMMON, beyond_noise, served_vector, vector_noise
from harness.verify.judging.forcing import forced_tokens, forcings
from harness.verify.judging.load_part import asked_of

_TOKENS = 16
"""Output tokens: as many as an answer needs to be told from those of other prompts."""
_LOGPROBS = 5
_MOST_DOUBTED = 64
"""Block questions before it is known which outputs are wrong, those with the strangest first tokens first."""


@dataclass(frozen=True, slots=True)
class BlockQuestions:
    """The block questions of a run so far."""

    verification: Verification
    asked: Sequence[Request]
    """The questions, their own tests and their teacher forcings."""
    answered: Mapping[str, Operation]
    """By the request id of the wrong output."""
    forced: Mapping[str, Sequence[Operation]]
    """The teacher forcings under their own prompts, by the request id of the question."""
    own: Mapping[str, Operation]
    """The own tests, by the request id of the question."""
    kept: Collection[str]
    """Ids of the requests whose blocks the decode servers may still have."""
    near: float
    """Nats of regret up to which a token counts as the best one."""
    noise: float | None
    """The limit of noise of first tokens' log-probabilities, nats; None if it is not known."""

    @classmethod
    def of(cls, verification: Verification, history: History, noise: float | None) -> "BlockQuestions":
        """From everything that was asked."""
        sent = {o.request.request_id: o.request for o in asked_of(history) if is_block_question(o.request)}
        forced = {
            name: [one for one in found if one.request.owner is None]
            for name, found in forcings(history).items()
            if name in sent
        }
        own = {
            str(o.request.about): o
            for o in asked_of(history)
            if o.request.purpose is Purpose.OWNER_TEST
            and (question := sent.get(str(o.request.about))) is not None
            and o.request.owner == question.about
        }
        further = (one.request for found in (*forced.values(), own.values()) for one in found)
        asked = (*sent.values(), *further)
        kept, near = kept_by_decode(verification.deployment, history), near_regret(history)
        return cls(verification, asked, block_questions(history), forced, own, kept, near, noise)

    def to_ask(self, wrong: Operation) -> Iterator[Request]:
        """The next request about the blocks of a wrong output: the question, its own test, or its teacher forcing."""
        who, answered = wrong.request.request_id, self.answered.get(wrong.request.request_id)
        if answered is None:
            yield from () if any(one.about == who for one in self.asked) else self._question(wrong)
        elif self._is_wrong(answered) is None:
            name, prompt = answered.request.request_id, answered.prompt_token_ids or ()
            comparable = self.noise is not None and len(served_vector(answered)) >= MIN_COMMON
            if comparable and name not in self.own:
                yield owner_test(self.verification, answered, wrong, prompt)
            elif not self.forced.get(name):
                yield self._forcing(name, prompt, answer_of(answered))

    def own_prompt_forced(self, subject: Operation) -> bool:
        """Whether the subject of a search is forced under its own whole prompt, as all wrong outputs are."""
        return subject.request.of_load or bool(self.forced.get(subject.request.request_id))

    def subject(self, wrong: Operation) -> Operation:
        """What an owner is searched for: the answer to the block question if it is wrong, otherwise the output."""
        asked = self.answered.get(wrong.request.request_id)
        if asked is None or not self._is_wrong(asked):
            return wrong
        # Whatever was sent until the output ended may be its owner.
        return Operation(replace(asked.sent, at=wrong.sent.at), replace(asked.ended, at=wrong.ended.at))

    def _is_wrong(self, asked: Operation) -> bool | None:
        name, start = asked.request.request_id, len(asked.prompt_token_ids or ())
        found = [forced_tokens(one, start) for one in self.forced.get(name, ())]
        own = served_vector(self.own[name]) if name in self.own else {}
        forced = [one for one in found if one is not None]
        return blocks_are_wrong(asked, own, forced, near=self.near, noise=self.noise)

    def _forcing(self, name: str, prompt: Tokens, answer: Tokens) -> Request:
        salt, route = self.verification.how.salt, self.verification.forcing_route
        return teacher_forcing(name, prompt, answer, name=f"{name}-teacher", salt=salt, route=route)

    def _question(self, wrong: Operation) -> Iterator[Request]:
        prompt, size = wrong.prompt_token_ids or (), self.verification.block_size
        whole = (len(prompt) - 1) // size * size
        servers = self.verification.deployment.of(Role.DECODE)
        server = serving(servers, wrong.ended.decode_server)
        if not whole or server is None or wrong.request.request_id not in self.kept:
            return
        yield replace(
            wrong.request,
            request_id=f"{wrong.request.request_id}-blocks",
            prompt=prompt[: whole + 1],
            sampling=Sampling(
                max_tokens=min(_TOKENS, self.verification.room(prompt)), logprobs=_LOGPROBS, ignore_eos=True
            ),
            route=Route.DECODE,
            server=server,
            endpoint=Endpoint.COMPLETIONS,
            stream=False,
            continues=None,
            purpose=Purpose.OWNER_TEST,
            about=wrong.request.request_id,
        )


def doubted_blocks(verification: Verification, history: History) -> list[Request]:
    """The block questions about outputs whose first token is not the one that the prefill server named; then own tests.

    They come before everything else that is asked, since the questions about other prompts evict these blocks.
    """
    served = through_proxy(history)
    doubted = beyond_noise(served)[:_MOST_DOUBTED]
    if not doubted:
        return []
    questions = BlockQuestions.of(verification, history, vector_noise(served))
    asked = (request for one in doubted for request in questions.to_ask(one))
    # Forcings can wait until it is known which outputs are wrong.
    return [request for request in asked if request.purpose is Purpose.OWNER_TEST]
