"""Verification as follow-up scenarios: what to ask once the answers are there. Pure functions of the history.

``followed`` runs them in this order, each against the history that the ones before have left; None: nothing to ask.

1. ``control_arm``       prompts of the load again, on D alone, at the load's concurrency
2. ``forced``            teacher forcing of the outputs that the policy picks, of probes and of all control outputs,
                         mixed, so that both kinds are forced in the same batches
3. ``confirmation``      for outputs that look wrong: more control outputs of just these prompts. A prompt may be
                         noisier than the arm's; then its own control outputs show it and the noise floor rises. Then
                         ``forced`` again, which asks only what is new.
4. ``suppositions``      for outputs that are wrong: their teacher forcing under the prompts of others, to name whose KV
                         it was

Each follow-up bears the name of the scenario that it verifies, and its entries are that scenario's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

from harness.history import History, Operation, Outcome
from harness.scenario import Phase, Request, Route, Scenario
from workloads.probe import PROBE
from workloads.reference import control, teacher_forcing
from workloads.verify_policy import ArmSizes, VerifyPolicy, arm_sizes

SUSPECTS = 8
"""Outputs whose wrongness is looked into; a run with more needs no second look."""
ATTRIBUTED = 4
"""Wrong outputs whose owner is looked for: each costs OWNERS prefills, and the first leak is news enough."""
REPEATS = 4
"""Control outputs for each."""
OWNERS = 64
"""Requests that are tried as owners of a wrong output's KV: the last ones sent before it ended."""
_WHY = "Whether every answer is the one that its prompt has without KV transfer, and how much of a difference is noise."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One run's way of verifying."""

    policy: VerifyPolicy
    scenario: str
    """Whose outputs: the name of the scenario."""
    concurrency: int
    """The load's."""
    salt: str
    """New for each run."""
    seed: int = 0
    control_route: Route = Route.DECODE
    forcing_route: Route = Route.PREFILL
    max_model_len: int | None = None
    """Tokens of a context: longer prompts with their outputs are forced as far as they go."""

    def control_arm(self, history: History) -> Scenario | None:
        """Step 1."""
        served = self._picked(_served(history, self.scenario))
        controls = islice(cycle(served), self._sizes(served).controls) if served else iter(())
        turns = ((number // max(len(served), 1), operation) for number, operation in enumerate(controls))
        return self._scenario("control", [self._control(operation, turn) for turn, operation in turns])

    def forced(self, history: History, name: str = "teacher") -> Scenario | None:
        """Step 2, and again after step 3."""
        served = self._picked(_served(history, self.scenario))
        chosen = served[: self._sizes(served).verified]
        others = [o for o in _completed(history, self.scenario) if _is_probe(o) or _is_control(o)]
        asked = {
            o.request.reference_for for o in history.operations() if o.request.sampling.prompt_logprobs is not None
        }
        new = [o for o in _interleaved(chosen, others) if o.request.request_id not in asked]
        return self._scenario(name, [request for operation in new for request in self._forcings(operation)])

    def confirmation(self, history: History, wrong: Collection[str]) -> Scenario | None:
        """Step 3; ``wrong``: request ids."""
        suspects = [o for o in _completed(history, self.scenario) if o.request.request_id in wrong][:SUSPECTS]
        again = [self._control(operation, 1000 + turn) for turn in range(REPEATS) for operation in suspects]
        return self._scenario("confirmation", again)

    def suppositions(self, history: History, wrong: Collection[str]) -> Scenario | None:
        """Step 4."""
        completed = _served(history, self.scenario)
        suspects = [o for o in completed if o.request.request_id in wrong][:ATTRIBUTED]
        return self._scenario("owners", [one for suspect in suspects for one in self._supposed(suspect, completed)])

    def _scenario(self, phase: str, requests: Sequence[Request]) -> Scenario | None:
        if not requests:
            return None
        return Scenario(self.scenario, _WHY, (Phase(phase, tuple(requests), self.concurrency, counted=False),))

    def _picked(self, served: Sequence[Operation]) -> list[Operation]:
        """All of them in an order drawn from the seed: the policy takes the first ones."""
        order = np.random.default_rng(self.seed).permutation(len(served))
        return [served[index] for index in order]

    def _sizes(self, served: Sequence[Operation]) -> ArmSizes:
        outputs = [sum(len(choice.token_ids) for choice in o.ended.choices) for o in served]
        tokens = [len(o.prompt_token_ids or ()) + output for o, output in zip(served, outputs, strict=True)]
        return arm_sizes(self.policy, tokens, sum(outputs), self.concurrency)

    def _control(self, operation: Operation, turn: int) -> Request:
        return control(operation.request, salt=self.salt, turn=turn, route=self.control_route)

    def _forcings(self, operation: Operation) -> Iterator[Request]:
        prompt, who = operation.prompt_token_ids, operation.request.request_id
        for index, choice in enumerate(operation.ended.choices):
            if prompt is not None and choice.token_ids:
                yield self._forcing(who, f"{who}-teacher{index}", prompt, choice.token_ids)

    def _forcing(self, who: str, name: str, prompt: tuple[int, ...], output: tuple[int, ...]) -> Request:
        # The one token that a forcing generates needs a place too.
        room = len(output) if self.max_model_len is None else self.max_model_len - 1 - len(prompt)
        return teacher_forcing(who, prompt, output[:room], name=name, salt=self.salt, route=self.forcing_route)

    def _supposed(self, suspect: Operation, completed: Sequence[Operation]) -> Iterator[Request]:
        """The suspect's output under what D would have computed from another's KV: see the checker of ownership."""
        prompt, who = suspect.prompt_token_ids or (), suspect.request.request_id
        before = [o for o in completed if o.sent.at <= suspect.ended.at and o is not suspect]
        for owner in before[-OWNERS:]:
            head = (owner.prompt_token_ids or ())[: len(prompt) - 1]
            if len(head) == len(prompt) - 1 and head != prompt[:-1] and suspect.ended.choices:
                name = f"{who}-as-{owner.request.request_id}"
                yield self._forcing(who, name, (*head, prompt[-1]), suspect.ended.choices[0].token_ids)


Step = Callable[[History], Scenario | None]
"""What is to be asked next, in view of what happened so far; None: nothing."""
Judge = Callable[[History], Collection[str]]
"""Which outputs are wrong, as far as it is known now."""


def follow_ups(verification: Verification, wrong_outputs: Judge) -> tuple[Step, ...]:
    """All steps in order: each is called with the history so far, and what it returns is run before the next."""
    return (
        verification.control_arm,
        verification.forced,
        lambda history: verification.confirmation(history, wrong_outputs(history)),
        lambda history: verification.forced(history, "teacher-again"),
        lambda history: verification.suppositions(history, wrong_outputs(history)),
    )


def followed(load: Scenario, history: Callable[[], History], steps: Iterable[Step]) -> Iterator[Scenario]:
    """The load and then what each step finds to ask.

    To be run one by one, as they come: ``history`` is called when the one before has been run.
    """
    yield load
    for step in steps:
        scenario = step(history())
        if scenario is not None:
            yield scenario


def _completed(history: History, scenario: str) -> list[Operation]:
    return [o for o in history.operations(scenario=scenario) if o.outcome is Outcome.OK]


def _served(history: History, scenario: str) -> list[Operation]:
    """What is verified by sampling: completed requests through the path under test that are nobody's reference."""
    return [
        o
        for o in _completed(history, scenario)
        if o.request.reference_for is None and o.request.route is Route.PROXY and o.prompt_token_ids is not None
    ]


def _is_probe(operation: Operation) -> bool:
    return operation.request.reference_for is None and operation.sent.phase.startswith(PROBE)


def _is_control(operation: Operation) -> bool:
    request = operation.request
    return request.reference_for is not None and request.sampling.prompt_logprobs is None


def _interleaved(one: Sequence[Operation], other: Sequence[Operation]) -> list[Operation]:
    """Both in proportion, from beginning to end."""
    places = [(index / len(side), operation) for side in (one, other) for index, operation in enumerate(side)]
    return [operation for _, operation in sorted(places, key=lambda place: place[0])]
