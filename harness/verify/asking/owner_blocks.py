"""The whole blocks of a wrong output, asked again where the decode server keeps them. Pure.

A *block question* is the prompt's whole blocks and one token more, sent to the decode server that served the output,
under its own ``cache_salt``. The server finds the blocks in its prefix cache, as they were when the output was made,
and answers from them: if they are another request's, so is the answer. It is teacher-forced under its own prompt, and
counts as wrong if that shows regret beyond the noise. Otherwise the blocks are right, or were evicted and computed
again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.facts import Role, serving
from harness.history import History, Operation
from harness.scenario import Endpoint, Purpose, Request, Route, Sampling
from harness.verify.asking.options import Verification
from harness.verify.asking.outputs import through_proxy
from harness.verify.asking.requests import teacher_forcing
from harness.verify.judging import near_regret
from harness.verify.judging.first_token import own_distance, vector_noise
from harness.verify.judging.forcing import forced_tokens, forcings
from harness.verify.judging.owner_tests import block_questions, is_block_question

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
    """The questions and their teacher forcings."""
    answered: Mapping[str, Operation]
    """By the request id of the wrong output."""
    forced: Mapping[str, Sequence[Operation]]
    """The teacher forcings, by the request id of the question."""
    near: float
    """Nats of regret up to which a token counts as the best one."""

    @classmethod
    def of(cls, verification: Verification, history: History) -> "BlockQuestions":
        """From everything that was asked."""
        sent = [o.request for o in history.operations() if is_block_question(o.request)]
        forced = {name: found for name, found in forcings(history).items() if name in {one.request_id for one in sent}}
        own = [o.request for found in forced.values() for o in found if o.request.owner is None]
        return cls(verification, (*sent, *own), block_questions(history), forced, near_regret(history))

    def to_ask(self, wrong: Operation) -> Iterator[Request]:
        """The question about a wrong output, and then its teacher forcing, if they were not sent yet."""
        answered, who = self.answered.get(wrong.request.request_id), wrong.request.request_id
        if answered is not None and not self.forced.get(answered.request.request_id):
            prompt, answer = answered.prompt_token_ids or (), answered.ended.choices[0].token_ids
            name, how = answered.request.request_id, self.verification.how
            yield teacher_forcing(
                name, prompt, answer, name=f"{name}-teacher", salt=how.salt, route=self.verification.forcing_route
            )
        elif not any(one.about == who for one in self.asked):
            yield from self._question(wrong)

    def subject(self, wrong: Operation) -> Operation:
        """What an owner is searched for: the answer to the block question if it is wrong, otherwise the output."""
        asked = self.answered.get(wrong.request.request_id)
        if asked is None or not self._is_wrong(asked):
            return wrong
        # Whatever was sent until the output ended may be its owner.
        return Operation(replace(asked.sent, at=wrong.sent.at), replace(asked.ended, at=wrong.ended.at))

    def _is_wrong(self, asked: Operation) -> bool:
        start = len(asked.prompt_token_ids or ())
        own = (one for one in self.forced.get(asked.request.request_id, ()) if one.request.owner is None)
        found = [tokens for one in own if (tokens := forced_tokens(one, start)) is not None]
        return any(bool((one.regret > self.near).any()) for one in found)

    def _question(self, wrong: Operation) -> Iterator[Request]:
        prompt, size = wrong.prompt_token_ids or (), self.verification.block_size
        whole = (len(prompt) - 1) // size * size
        servers = self.verification.deployment.of(Role.DECODE)
        server = serving(servers, wrong.ended.decode_server)
        if not whole or server is None:
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
    """The block questions about outputs whose first token is not the one that the prefill server named.

    They come before everything else that is asked, since the questions about other prompts evict these blocks.
    """
    served = through_proxy(history)
    noise = vector_noise(served)
    if noise is None:
        return []
    apart = ((own_distance(one), one) for one in served)
    far = ((away, one) for away, one in apart if away is not None and away > noise)
    doubted = sorted(far, key=lambda pair: -pair[0])
    questions = BlockQuestions.of(verification, history)
    return [request for _, one in doubted[:_MOST_DOUBTED] for request in questions.to_ask(one)]
