"""Verification as follow-up scenarios: what to ask once the answers are there. Pure functions of the history.

``followed`` runs them in this order, each against the history that the ones before have left; None: nothing to ask.

0. ``probe``             beginnings of the load's prompts, through the caches that it filled (probe.py)
1. ``control_arm``       prompts of the load again, on D alone, at the load's concurrency; not where the noise is known
                         from an earlier run
2. ``forced``            teacher forcing of the outputs that the policy picks and of all control outputs, mixed, so that
                         both kinds are forced in the same batches; then of the probes that are in doubt: what a probe
                         answered is judged by forcings of the prompt that it begins, or by the other server's answer
3. ``confirmation``      for outputs that look wrong: more control outputs of just these prompts. A prompt may be
                         noisier than the arm's; then its own control outputs show it and the noise floor rises. Then
                         ``forced`` again, which asks only what is new.
4. ``owners``            for outputs that are wrong and whose owner is not known: whose KV was it? In rounds (owners.py)
5. ``retries``           for outputs that are wrong and nobody's: do they come again? Then ``forced`` again (retries.py)
6. ``tier_probe``        the prefix caches are emptied, where that is allowed, and the offload tiers are asked what the
                         caches were asked. At the end: what is asked before hits the caches. Then steps 2 and 3 again,
                         for these probes

Each follow-up bears the name of the scenario that it verifies, and its entries are that scenario's.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice

import numpy as np

from harness.history import History, NoiseMeasured, Operation, Outcome
from harness.scenario import Condition, Phase, Purpose, Request, Route, Scenario
from harness.verify.asking.owners import ROUNDS, OwnerSearch
from harness.verify.asking.policy import ArmSizes, VerifyPolicy, arm_sizes, prefixes_probed, tier_prefixes
from harness.verify.asking.probe import TIER_PREFIXES, Places, Probing, cache_probe, tier_probe, tier_reset
from harness.verify.asking.reference import control, teacher_forcing
from harness.verify.asking.retries import retries

SUSPECTS = 8
"""Outputs that are measured again before they are accused; a run with more needs no second look."""
DOUBTS = 256
"""Probes that are teacher-forced themselves; where more are in doubt, enough is wrong to tell."""
ROUNDS_OF_CONFIRMATION = 3
REPEATS = 4
"""Control outputs for each."""
FURTHER_CONTROLS = 64
"""Control outputs of any prompts that are made beside them, in each round."""
SEARCHES = 2 * len(ROUNDS)
"""Turns of the search for owners: each round is a turn of suppositions and one of forcings."""
FURTHER = "control-further"
"""Name of the phase that asks them."""
_FURTHER_TURN = 2000
# Turns below are those of the control arm and of the suspects' own control outputs.
_WHY = "Whether every answer is the one that its prompt has without KV transfer, and how much of a difference is noise."


Step = Callable[[History], Scenario | None]
"""What is to be asked next, in view of what happened so far; None: nothing."""
Judge = Callable[[History], Collection[str]]


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
    block_size: int | None = None
    """Tokens per KV block; the larger, where servers differ."""
    tiers: Mapping[Route, Sequence[int]] = field(default_factory=dict)
    """Servers whose offload tier may be probed, for which their prefix caches are emptied: indices, by route."""
    places: Places = field(default_factory=Places)
    """Where the probes of a request go."""

    def probe(self, history: History) -> Scenario | None:
        """Step 0."""
        served = _served(history, self.scenario)
        if self.block_size is None or not served:
            return None
        picked = self._picked(served)[: self._sizes(served).verified]
        probing = self._probing(self.block_size, self._prefixes(served))
        return cache_probe(history, probing, forced={o.request.request_id for o in picked})

    def retries(self, history: History, wrong: Collection[str], owned: Judge) -> Scenario | None:
        """Step 5; ``owned`` is asked only where something is wrong."""
        served = _served(history, self.scenario)
        suspects = [o for o in served if o.request.request_id in wrong]
        ownerless = [o for o in suspects if o.request.request_id not in owned(history)] if suspects else []
        return retries(self.scenario, ownerless, concurrency=self.concurrency, salt=self.salt)

    def tier_reset(self, history: History) -> Scenario | None:
        """Empties the prefix caches in front of the tiers that are probed next."""
        probed = any(o.request.purpose is Purpose.PROBE for o in history.operations(scenario=self.scenario))
        return tier_reset(self.scenario, self.tiers) if self.tiers and probed else None

    def tier_probe(self, history: History) -> Scenario | None:
        """Asks the offload tiers for what the prefix caches were asked, after those were emptied."""
        if self.block_size is None or not self.tiers:
            return None
        probed = self._prefixes(_served(history, self.scenario))
        return tier_probe(history, self._probing(self.block_size, tier_prefixes(self.policy, probed, TIER_PREFIXES)))

    def _probing(self, block_size: int, most: int | None) -> Probing:
        return Probing(
            scenario=self.scenario,
            block_size=block_size,
            concurrency=self.concurrency,
            seed=self.seed,
            most=most,
            places=self.places,
        )

    def _prefixes(self, served: Sequence[Operation]) -> int | None:
        return prefixes_probed(self.policy, [_tokens(o) for o in served])

    def control_arm(self, history: History) -> Scenario | None:
        """Step 1."""
        if any(history.of(NoiseMeasured)):
            return None
        served = self._picked(_served(history, self.scenario))
        controls = islice(cycle(served), self._sizes(served).controls) if served else iter(())
        turns = ((number // max(len(served), 1), operation) for number, operation in enumerate(controls))
        return self._scenario("control", [self._control(operation, turn) for turn, operation in turns])

    def forced(self, history: History, name: str = "teacher") -> Scenario | None:
        """Step 2, and again after step 3."""
        served = self._picked(_served(history, self.scenario))
        chosen = served[: self._sizes(served).verified]
        others = [o for o in _completed(history, self.scenario) if _is_control(o) or _is_retry(o)]
        asked = {o.request.about for o in history.operations() if o.request.purpose is Purpose.FORCING}
        new = [o for o in interleaved(chosen, others) if o.request.request_id not in asked]
        return self._scenario(name, [request for operation in new for request in self._forcings(operation)])

    def doubts(self, history: History, doubted: Collection[str]) -> Scenario | None:
        """Step 2, of probes; ``doubted``: request ids."""
        probes = [o for o in _completed(history, self.scenario) if o.request.request_id in doubted][:DOUBTS]
        return self._scenario("doubts", [request for probe in probes for request in self._forcings(probe)])

    def confirmation(self, history: History, wrong: Collection[str]) -> Scenario | None:
        """Step 3; ``wrong``: request ids."""
        confirmed = {o.request.about for o in history.operations() if o.request.condition is Condition.SUSPECT}
        new = set(wrong) - confirmed
        suspects = [o for o in _completed(history, self.scenario) if o.request.request_id in new][:SUSPECTS]
        if not suspects:
            return None
        again = [
            self._control(operation, 1000 + turn, Condition.SUSPECT)
            for turn in range(REPEATS)
            for operation in suspects
        ]
        return self._scenario("confirmation", again, more=list(self._further_controls(history)))

    def _further_controls(self, history: History) -> Iterator[Request]:
        """So many for prompts of the load in turn, under names that no round before has used."""
        served = self._picked(_served(history, self.scenario))
        before = sum(_is_control(o) for o in history.operations())
        for number, operation in enumerate(islice(cycle(served), FURTHER_CONTROLS) if served else ()):
            yield self._control(operation, _FURTHER_TURN + before + number)

    def owners(self, history: History, wrong: Collection[str], named: Collection[str] = ()) -> Scenario | None:
        """Step 4, to be taken several times; ``named``: those of the wrong whose owner is known by now."""
        served = _served(history, self.scenario)
        suspects = [o for o in served if o.request.request_id in wrong and o.request.request_id not in named]
        search = OwnerSearch(
            salt=self.salt, route=self.forcing_route, block_size=self.block_size, max_model_len=self.max_model_len
        )
        return self._scenario("owners", search.next_round(history, served, suspects))

    def _scenario(self, phase: str, requests: Sequence[Request], more: Sequence[Request] = ()) -> Scenario | None:
        """``more``: control requests of any prompts, asked behind the others."""
        if not requests:
            return None
        asked = {phase: requests} | ({FURTHER: more} if more else {})
        phases = (Phase(name, tuple(those), self.concurrency, counted=False) for name, those in asked.items())
        return Scenario(self.scenario, _WHY, tuple(phases))

    def _picked(self, served: Sequence[Operation]) -> list[Operation]:
        """All of them in an order drawn from the seed: the policy takes the first ones."""
        order = np.random.default_rng(self.seed).permutation(len(served))
        return [served[index] for index in order]

    def _sizes(self, served: Sequence[Operation]) -> ArmSizes:
        outputs = [sum(len(choice.token_ids) for choice in o.ended.choices) for o in served]
        return arm_sizes(self.policy, [_tokens(o) for o in served], sum(outputs), self.concurrency)

    def _control(self, operation: Operation, turn: int, condition: Condition | None = None) -> Request:
        route = self.control_route
        return control(operation.request, salt=self.salt, turn=turn, route=route, condition=condition)

    def _forcings(self, operation: Operation) -> Iterator[Request]:
        prompt, who = operation.prompt_token_ids, operation.request.request_id
        for index, choice in enumerate(operation.ended.choices):
            if prompt is not None and choice.token_ids:
                yield self._forcing(who, f"{who}-teacher{index}", prompt, choice.token_ids)

    def _forcing(self, who: str, name: str, prompt: tuple[int, ...], output: tuple[int, ...]) -> Request:
        # The one token that a forcing generates needs a place too.
        room = len(output) if self.max_model_len is None else self.max_model_len - 1 - len(prompt)
        return teacher_forcing(who, prompt, output[:room], name=name, salt=self.salt, route=self.forcing_route)


@dataclass(frozen=True, slots=True)
class Judges:
    """What the checkers say of a history that is not complete yet: request ids."""

    wrong: Judge
    """Outputs and probes that are wrong, as far as it is known now."""
    owned: Judge
    """Those of them whose owner is known."""
    doubted: Judge
    """Probes that nothing but a forcing of their own can judge."""


def follow_ups(verification: Verification, judges: Judges) -> tuple[Step, ...]:
    """All steps in order: each is called with the history so far, and what it returns is run before the next."""
    judging = (_remembering(judge) for judge in (judges.wrong, judges.owned, judges.doubted))
    wrong_outputs, owned_outputs, doubted_probes = judging

    def owners(history: History) -> Scenario | None:
        wrong = wrong_outputs(history)
        return verification.owners(history, wrong, owned_outputs(history)) if wrong else None

    return (
        verification.probe,
        verification.control_arm,
        verification.forced,
        lambda history: verification.doubts(history, doubted_probes(history)),
        *_confirmed(verification, wrong_outputs),
        *[owners] * SEARCHES,
        lambda history: verification.retries(history, wrong_outputs(history), owned_outputs),
        lambda history: verification.forced(history, "teacher-retries"),
        verification.tier_reset,
        verification.tier_probe,
        lambda history: verification.doubts(history, doubted_probes(history)),
        lambda history: verification.confirmation(history, wrong_outputs(history)),
        lambda history: verification.forced(history, "teacher-last"),
    )


def _confirmed(verification: Verification, wrong_outputs: Judge) -> Iterator[Step]:
    """Step 3, in rounds: more control outputs may bring a limit down, too; nobody is accused without a second look."""
    for number in range(1, ROUNDS_OF_CONFIRMATION + 1):
        yield lambda history: verification.confirmation(history, wrong_outputs(history))
        yield partial(verification.forced, name=f"teacher-again-{number}")


def _remembering(judge: Judge) -> Judge:
    """Asked again about a history that has not grown, it says what it said."""
    last: tuple[int, Collection[str]] | None = None

    def judged(history: History) -> Collection[str]:
        nonlocal last
        if last is None or last[0] != len(history.entries):
            last = len(history.entries), judge(history)
        return last[1]

    return judged


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
        if o.request.of_load and o.request.route is Route.PROXY and o.prompt_token_ids is not None
    ]


def _is_retry(operation: Operation) -> bool:
    return operation.request.purpose is Purpose.RETRY


def _tokens(operation: Operation) -> int:
    """Engine tokens, prompt and answer."""
    return len(operation.prompt_token_ids or ()) + sum(len(choice.token_ids) for choice in operation.ended.choices)


def _is_control(operation: Operation) -> bool:
    return operation.request.purpose is Purpose.CONTROL


def interleaved(one: Sequence[Operation], other: Sequence[Operation]) -> list[Operation]:
    """Both in proportion, from beginning to end."""
    places = [(index / len(side), operation) for side in (one, other) for index, operation in enumerate(side)]
    return [operation for _, operation in sorted(places, key=lambda place: place[0])]
