"""What block questions say: whether the blocks that a decode server keeps of a wrong output are another prompt's. Pure.

A block question is the whole blocks of an output's prompt and one token more, sent to the decode server that has these
blocks in its prefix cache (``asking/owner_blocks.py``). Its *own test* is the same prompt on a prefill server: an owner
test whose owner is the output itself. If the two first tokens' log-probabilities are apart as only those of different
prompts are (first_token.py), the blocks are wrong; if they are equal within the noise, the blocks are right. In between
teacher forcing of the question's answer decides.
"""

from collections.abc import Collection

from harness.history import History, Operation, Outcome
from harness.scenario import Purpose, Request
from harness.verify.judging.first_token import FAR, MIN_COMMON, Vector, distance, served_vector
from harness.verify.judging.forcing import ForcedTokens
from harness.verify.judging.load_part import asked_of


def is_block_question(request: Request) -> bool:
    """Whether the request asks a decode server for the blocks that a wrong output has in its prefix cache."""
    return request.purpose is Purpose.OWNER_TEST and request.owner is None


def block_questions(history: History) -> dict[str, Operation]:
    """The answered question about each wrong output's whole blocks, by the output's request id."""
    return {
        str(one.request.about): one
        for one in asked_of(history)
        if is_block_question(one.request) and one.outcome is Outcome.OK and one.ended.choices
    }


def blocks_are_wrong(
    question: Operation, own: Vector, forced: Collection[ForcedTokens], *, near: float, noise: float | None
) -> bool | None:
    """Whether the answer to a block question is not that of its prompt; None if that is not known.

    ``own``: the first token's log-probabilities of the own test, nats; empty if there was none. ``forced``: the
    question's answer under its own whole prompt, if it was forced. ``near``: nats of regret up to which a token counts
    as the best one. ``noise``: the limit of noise of vectors, nats; None if it is not known.
    """
    if forced:
        return any(bool((one.regret > near).any()) for one in forced)
    served = served_vector(question)
    if noise is None or min(len(served), len(own)) < MIN_COMMON:
        return None
    apart = distance(served, own)
    return False if apart <= noise else True if apart >= FAR * noise else None
