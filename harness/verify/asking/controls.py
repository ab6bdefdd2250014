"""Control requests measure noise: for prompts of the whole load, and for prompts whose outputs look wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from harness.history import History, NoiseMeasured, Operation
from harness.memo import once
from harness.scenario import Condition, Purpose, Request
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.outputs import operations_named
from harness.verify.asking.policy import CONTROL_OUTPUT
from harness.verify.asking.requests import Tokens, control
from harness.verify.judging.load_part import asked_of
from harness.verify.judging.witness import witnessed

SUSPECTS = 8
"""Outputs of one round whose prompts get control requests of their own. No prompt gets them in two rounds."""
REPEATS = 4
"""Control requests for the prompt of each of these outputs."""
FURTHER_CONTROLS = 64
"""Control requests for other prompts of the load, in each round, at most: no more than the load has otherwise."""
ENOUGH_CONTROLS = 192
"""Control requests of all rounds together where every output is verified and noise is not 0. If one request in fifty is
noisier than the others, whatever its prompt, so many show it with a probability of 98 %; 64 do with 73 %."""
_SHORT_PROMPT = 1024
"""Control requests always repeat a prompt of so many tokens in full."""


def controls(verification: Verification, history: History) -> Phases:
    """The control requests that the load still lacks; none if the noise is known from an earlier run."""
    if any(history.of(NoiseMeasured)):
        return ()
    outputs = verification.outputs(history)
    made = sum(o.request.purpose is Purpose.CONTROL for o in asked_of(history))
    missing = max(0, verification.sizes(history, outputs).controls - made)
    maker = _Maker.of(verification, history, outputs)
    return verification.phase("control", maker.any_prompts(missing), history)


def confirmation(verification: Verification, history: History, wrong: Sequence[str]) -> Phases:
    """Further control requests: for prompts whose outputs look wrong, and for other prompts.

    Of outputs whose first token alone differs, they show whether the decode server repeats what prefill computed.

    ``wrong``: request ids, the most urgent first.

    If a prompt is noisier than most, its own control outputs show that, and the noise limits rise. Controls of other
    prompts may show noise that occurs once in a hundred tokens. An output that is really wrong stays wrong.
    """
    if not wrong:
        return ()
    controls = [o for o in asked_of(history) if o.request.purpose is Purpose.CONTROL]
    done = {o.request.about for o in controls if o.request.condition is Condition.SUSPECT}
    maker = _Maker.of(verification, history, verification.outputs(history))
    every = operations_named(history, wrong)
    suspects = [every[name] for name in wrong if name not in done and maker.fits(every[name])][:SUSPECTS]
    if not suspects:
        return ()
    sizes = verification.sizes(history, maker.outputs)
    further = min(FURTHER_CONTROLS, sizes.controls)
    requests = [*maker.whole(suspects), *maker.any_prompts(further), *maker.whole(suspects * (REPEATS - 1))]
    if sizes.drawn >= len(maker.outputs) and not witnessed(history).exact:
        # The last ones, since the budget may not suffice for them.
        requests += maker.any_prompts(max(ENOUGH_CONTROLS - len(controls) - len(requests), 0))
    return verification.phase("confirmation", requests, history)


@once
def _prompt_tokens(outputs: list[Operation]) -> int:
    return sum(o.prompt_tokens for o in outputs)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes control requests with new request ids."""

    verification: Verification
    outputs: list[Operation]
    tokens: int
    """Tokens of a control output: the average of the load's outputs."""
    longest: int
    """Longer prompts are shortened to so many tokens: one that fills a context would cost more than all others."""
    turns: Counter[str]
    """Control requests made so far for each prompt, by the request id of its output."""

    @classmethod
    def of(cls, verification: Verification, history: History, outputs: list[Operation]) -> "_Maker":
        prompts = _prompt_tokens(outputs)
        return cls(
            verification,
            outputs,
            tokens=verification.sizes(history, outputs).control_tokens,
            longest=max(_SHORT_PROMPT, 2 * prompts // max(len(outputs), 1)),
            turns=Counter(str(o.request.about) for o in asked_of(history) if o.request.purpose is Purpose.CONTROL),
        )

    def any_prompts(self, number: int) -> Iterator[Request]:
        """``number`` control requests, for prompts of all workloads in turn."""
        # One by one: to read the prompts of all outputs would take longer than the requests.
        for o in islice(cycle(filter(self.fits, self.outputs)), number):
            yield self._control(o, (o.prompt_token_ids or ())[: self.longest], self.tokens)

    def whole(self, suspects: Iterable[Operation]) -> Iterator[Request]:
        """A control request for each suspected output, with its whole prompt and at its length."""
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
