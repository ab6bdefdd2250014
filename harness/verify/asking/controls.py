"""Control requests: how large the noise is, for any prompt of the load and for prompts whose outputs look wrong."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice

from harness.history import History, NoiseMeasured, Operation
from harness.scenario import Condition, Purpose, Request
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.policy import CONTROL_OUTPUT
from harness.verify.asking.requests import Tokens, control

SUSPECTS = 8
"""Outputs that are measured again before they count as wrong; a run with more needs no second look."""
REPEATS = 4
"""Control requests for each of them."""
FURTHER_CONTROLS = 64
"""Control requests for any prompts that are made beside them, in each round."""
_SHORT_PROMPT = 1024
"""Tokens of a prompt that control requests always repeat in full."""


def controls(verification: Verification, history: History) -> Phases:
    """As many as the load needs, less those that were made; none where the noise is known from an earlier run."""
    if any(history.of(NoiseMeasured)):
        return ()
    outputs = verification.outputs(history)
    made = sum(o.request.purpose is Purpose.CONTROL for o in history.operations())
    missing = max(0, verification.sizes(history, outputs).controls - made)
    maker = _Maker.of(verification, history, outputs)
    return verification.phase("control", maker.any_prompts(missing), history)


def confirmation(verification: Verification, history: History, wrong: Collection[str]) -> Phases:
    """For answers that look wrong (``wrong``: request ids): control requests of these prompts, and of any others.

    A prompt may be noisier than most. Then its own control outputs show it, and the noise limits rise. The first
    control outputs may have shown none of what happens once in a hundred tokens; an output that is really wrong stays
    wrong beside any number of them.
    """
    new = set(wrong) - {o.request.about for o in history.operations() if o.request.condition is Condition.SUSPECT}
    maker = _Maker.of(verification, history, verification.outputs(history))
    suspects = [o for o in history.operations() if o.request.request_id in new and maker.fits(o)][:SUSPECTS]
    if not suspects:
        return ()
    requests = [*maker.whole(suspects * REPEATS), *maker.any_prompts(FURTHER_CONTROLS)]
    return verification.phase("confirmation", requests, history)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes control requests under names that are new."""

    verification: Verification
    outputs: list[Operation]
    tokens: int
    """Of a control output: as many as an output of the load has on average."""
    longest: int
    """Tokens of a prompt: one that fills a context would cost more than all others together."""
    turns: Counter[str]
    """Control requests for each prompt so far, by the request id of the output."""

    @classmethod
    def of(cls, verification: Verification, history: History, outputs: list[Operation]) -> "_Maker":
        prompts = sum(len(o.prompt_token_ids or ()) for o in outputs)
        return cls(
            verification,
            outputs,
            tokens=verification.sizes(history, outputs).control_tokens,
            longest=max(_SHORT_PROMPT, 2 * prompts // max(len(outputs), 1)),
            turns=Counter(str(o.request.about) for o in history.operations() if o.request.purpose is Purpose.CONTROL),
        )

    def any_prompts(self, number: int) -> Iterator[Request]:
        """So many, for prompts of all workloads in turn."""
        fitting = [o for o in self.outputs if self.fits(o)]
        for o in islice(cycle(fitting), number):
            yield self._control(o, (o.prompt_token_ids or ())[: self.longest], self.tokens)

    def whole(self, suspects: Iterable[Operation]) -> Iterator[Request]:
        """For these outputs, with whole prompts, and as long as they are."""
        for o in suspects:
            length = max((len(choice.token_ids) for choice in o.ended.choices), default=0)
            asked = self._control(o, o.prompt_token_ids or (), max(length, CONTROL_OUTPUT))
            yield replace(asked, condition=Condition.SUSPECT)

    def fits(self, output: Operation) -> bool:
        """Whether the prompt is known and leaves room for an answer."""
        return output.prompt_token_ids is not None and self.verification.room(output.prompt_token_ids) > 0

    def _control(self, output: Operation, prompt: Tokens, tokens: int) -> Request:
        who, fitting = output.request.request_id, min(tokens, self.verification.room(prompt))
        self.turns[who] += 1
        return control(who, prompt, fitting, name=f"{who}-control{self.turns[who]}", salt=self.verification.how.salt)
