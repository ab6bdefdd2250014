"""Verification of a catalogue's run: of every output of all its workloads together, when all of them have run.

All of it comes after the last workload: salted blocks take room in pools and tiers too, so that traffic between two
workloads would change what the second one's counters must say. Its entries bear a name of their own (``VERIFICATION``),
so that no workload's time has it in it. ``steps`` gives, and ``steps_after`` takes, in this order:

1. ``asked_again``    teacher forcing of every output, and a reference for each where forcing does not show everything
2. ``control_arm``    one for all workloads: prompts of theirs in turn, a few tokens each, on D alone. Only where an
                      output shows any noise at all: what shows none is right beside every arm. Then ``forced``
3. ``confirmation``   for outputs that look wrong: control outputs of just these prompts, as long as they are, and once
                      an arm as large again of all. A small arm may have seen none of what happens once in a hundred
                      tokens; a wrong output stays wrong beside any arm. Then ``forced`` again, which asks only what is
                      new; and both a second and a third time, for more tokens may bring a limit down as well as up,
                      and nobody is accused before he was measured again
4. ``owners``         whose KV a wrong output had, in rounds (owners.py)

What teacher forcing does not show, and a reference does: that a text or a conversation reached the servers as it was
sent (forcing starts from the ids that they told), that a stop string ended the answer where it had to, and an echo's
text. Steps may be taken again after further workloads: what was asked before counts, and is not asked again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice, zip_longest

import numpy as np

from harness.history import History, Operation, Outcome
from harness.scenario import TOP_LOGPROBS, Condition, Endpoint, Phase, Purpose, Request, Route, Sampling, Scenario
from harness.verify.asking.owners import OwnerSearch
from harness.verify.asking.plan import SEARCHES, SUSPECTS, Judge, Step, interleaved
from harness.verify.asking.reference import teacher_forcing

VERIFICATION = "verification"
"""Name of the scenario."""
CONTROL_TOKENS = 8
"""Tokens of a control output, as many as most answers of the catalogue have."""
FEWEST_CONTROLS = 16
"""128 tokens: a noise limit needs 100; the limit of an output's mean drift needs 16 outputs (noise.py, floor.py)."""
CONTROL_PROMPT = 1024
"""Tokens of a prompt that the control arm takes at most, or one prompt that fills a context would cost more than all
else. What noise a longer one has, ``confirmation`` asks with the whole of it."""
MOST_CONTROLS = 80
"""640 tokens: the size of the plain load's arm."""
_SHARE = 4
# One control token for so many that are judged: the arm must not cost more than what it is for.
CONFIRMING = 64
"""Further control outputs where something looks wrong; half of them of what does."""
_ROUNDS = 3
_CONCURRENCY = 32
"""At most, as far as a server's batch goes."""
_WHY = "Whether every answer is the one that its prompt has without KV transfer, and how much of a difference is noise."


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueVerification:
    """One run's way of verifying its workloads."""

    salt: str
    """New for each run."""
    seed: int = 0
    forcing_route: Route = Route.PREFILL
    max_model_len: int | None = None
    """Tokens of a context: nothing longer is asked."""
    block_size: int | None = None
    """Tokens per KV block; the larger, where servers differ."""

    def steps(self, judges: "CatalogueJudges") -> tuple[Step, ...]:
        """All of them, in order."""
        wrong_outputs, noise_matters = judges.wrong, judges.noise_matters

        def owners(history: History) -> Scenario | None:
            wrong = wrong_outputs(history)
            return self.owners(history, wrong, judges.owned(history)) if wrong else None

        return (
            self.asked_again,
            lambda history: self.control_arm(history) if noise_matters(history) else None,
            partial(self.forced, name="teacher-control"),
            *self._rounds(wrong_outputs),
            *[owners] * SEARCHES,
        )

    def _rounds(self, wrong_outputs: Judge) -> Iterator[Step]:
        for number in range(1, _ROUNDS + 1):
            yield self._confirm(wrong_outputs, number)
            yield partial(self.forced, name=f"teacher-again-{number}")

    def _confirm(self, wrong_outputs: Judge, number: int) -> Step:
        return lambda history: self.confirmation(history, wrong_outputs(history), number)

    def asked_again(self, history: History) -> Scenario | None:
        """Step 1."""
        subjects, there = to_verify(history), _references(history)
        doubted = [o for o in subjects if _needs_reference(o) and o.request.request_id not in there]
        asked = [*map(self._reference, doubted), *self._unforced(history)]
        return self._scenario("teacher", asked, history)

    def control_arm(self, history: History) -> Scenario | None:
        """Step 2, and then ``forced``."""
        subjects = to_verify(history)
        tokens = sum(len(choice.token_ids) for o in subjects for choice in o.ended.choices)
        wanted = max(FEWEST_CONTROLS, min(tokens // _SHARE // CONTROL_TOKENS, MOST_CONTROLS))
        missing = max(0, wanted - sum(map(_is_control, history.operations())))
        return self._scenario("control", self._controls(history, self._in_turn(subjects), missing), history)

    def forced(self, history: History, name: str) -> Scenario | None:
        """What has none yet, after steps 2 and 3."""
        return self._scenario(name, list(self._unforced(history)), history)

    def _unforced(self, history: History) -> Iterator[Request]:
        there = {o.request.about for o in history.operations() if _is_forcing(o)}
        controls = [o for o in history.operations() if _is_control(o) and o.outcome is Outcome.OK]
        new = [
            [o for o in side if o.request.request_id not in there and _can_be_forced(o)]
            for side in (to_verify(history), controls)
        ]
        return (one for o in interleaved(*new) for one in self._forcings(o))

    def confirmation(self, history: History, wrong: Collection[str], number: int = 1) -> Scenario | None:
        """Step 3, the ``number``-th time; ``wrong``: request ids."""
        subjects = to_verify(history)
        measured = {o.request.about for o in history.operations() if o.request.condition is Condition.SUSPECT}
        new = [o for o in subjects if o.request.request_id in wrong and o.request.request_id not in measured]
        suspects = new[:SUSPECTS]
        if not suspects:
            return None
        again = self._controls(history, suspects, CONFIRMING // 2, whole=True)
        rest = self._in_turn([o for o in subjects if o not in suspects and not measured])
        others = self._controls(history, rest, CONFIRMING // 2)
        return self._scenario(f"confirmation-{number}", [*again, *others], history)

    def owners(self, history: History, wrong: Collection[str], named: Collection[str]) -> Scenario | None:
        """Step 4, to be taken several times: as the plain load's, among the requests of all workloads."""
        served = [o for o in to_verify(history) if o.request.route is Route.PROXY and o.prompt_token_ids is not None]
        suspects = [o for o in served if o.request.request_id in wrong and o.request.request_id not in named]
        search = OwnerSearch(
            salt=self.salt, route=self.forcing_route, block_size=self.block_size, max_model_len=self.max_model_len
        )
        return self._scenario("owners", search.next_round(history, served, suspects), history)

    def _scenario(self, phase: str, requests: Sequence[Request], history: History) -> Scenario | None:
        if not requests:
            return None
        at_once = min(_CONCURRENCY, max(1, _most_in_flight(history)))
        return Scenario(VERIFICATION, _WHY, (Phase(phase, tuple(requests), at_once, counted=False),))

    def _in_turn(self, subjects: Sequence[Operation]) -> list[Operation]:
        """One of each workload, then another of each, and so on; which, is drawn from the seed."""
        by_workload: dict[str, list[Operation]] = {}
        for place in np.random.default_rng(self.seed).permutation(len(subjects)):
            by_workload.setdefault(subjects[place].sent.scenario, []).append(subjects[place])
        rounds = zip_longest(*by_workload.values())
        return [o for each in rounds for o in each if o is not None]

    def _controls(
        self, history: History, of: Sequence[Operation], number: int, *, whole: bool = False
    ) -> list[Request]:
        """So many control requests for the prompts of these, in turn; ``whole``: as long as theirs."""
        fit = [o for o in of if o.prompt_token_ids is not None and self._room(o.prompt_token_ids) > 0]
        turns: dict[str, int] = {}
        for o in history.operations():
            if _is_control(o):
                turns[str(o.request.about)] = turns.get(str(o.request.about), 0) + 1
        found = []
        for o in islice(cycle(fit), number) if fit else ():
            turn = turns[o.request.request_id] = turns.get(o.request.request_id, 0) + 1
            found.append(self._control(o, turn, whole=whole))
        return found

    def _control(self, operation: Operation, turn: int, *, whole: bool) -> Request:
        """The prompt alone: what shapes an answer would be noise's measure, too (a forbidden end is a regret)."""
        name = f"{operation.request.request_id}{'-control-again' if whole else '-control'}{turn}"
        prompt = (operation.prompt_token_ids or ())[: None if whole else CONTROL_PROMPT]
        length = max(CONTROL_TOKENS, *(len(choice.token_ids) for choice in operation.ended.choices))
        tokens = min(length if whole else CONTROL_TOKENS, self._room(prompt))
        sampling = Sampling(max_tokens=tokens, ignore_eos=True, logprobs=TOP_LOGPROBS)
        return self._beside(
            operation,
            name,
            prompt=prompt,
            sampling=sampling,
            route=Route.DECODE,
            purpose=Purpose.CONTROL,
            condition=Condition.SUSPECT if whole else None,
        )

    def _reference(self, operation: Operation) -> Request:
        request = operation.request
        logprobs = max(request.sampling.logprobs or 0, TOP_LOGPROBS)
        return replace(
            self._beside(
                operation,
                f"{request.request_id}-reference",
                prompt=request.prompt,
                sampling=replace(request.sampling, prompt_logprobs=None, logprobs=logprobs),
                route=self.forcing_route,
                purpose=Purpose.REFERENCE,
            ),
            endpoint=request.endpoint,
        )

    def _beside(self, operation: Operation, name: str, **fields: object) -> Request:
        return Request(
            name,
            stream=False,
            endpoint=Endpoint.COMPLETIONS,
            cache_salt=f"{self.salt}-{name}",
            about=operation.request.request_id,
            **fields,  # type: ignore[arg-type]  # the two callers name them
        )

    def _forcings(self, operation: Operation) -> Iterator[Request]:
        who, prompt = operation.request.request_id, operation.prompt_token_ids or ()
        for number, choice in enumerate(operation.ended.choices):
            # The one token that a forcing generates needs a place too.
            output = choice.token_ids[: max(0, self._room(prompt) - 1)]
            if output:
                yield teacher_forcing(
                    who, prompt, output, name=f"{who}-teacher{number}", salt=self.salt, route=self.forcing_route
                )

    def _room(self, prompt: Sequence[int]) -> int:
        """Tokens that the context has beside the prompt; those of a long answer where no limit is known."""
        return (1 << 20) if self.max_model_len is None else self.max_model_len - len(prompt)


@dataclass(frozen=True, slots=True)
class CatalogueJudges:
    """What the checkers say of a history that is not complete yet."""

    wrong: Judge
    """Request ids of outputs that are wrong, as far as it is known now."""
    owned: Judge
    """Those of them whose owner is known."""
    noise_matters: Callable[[History], bool]
    """Whether the verdict on some output waits for the noise to be measured."""


def steps_after(history: Callable[[], History], steps: Iterable[Step]) -> Iterator[Scenario]:
    """What each step finds to ask, to be run one by one, as they come."""
    for step in steps:
        scenario = step(history())
        if scenario is not None:
            yield scenario


def to_verify(history: History) -> list[Operation]:
    """Whatever was answered, but for requests that only prepare a cache: one token of a server asked directly."""
    return [
        o
        for o in history.operations()
        if o.outcome is Outcome.OK
        and o.request.of_load
        and o.request.expect_status is None
        and (o.request.route is Route.PROXY or o.request.sampling.max_tokens > 1)
    ]


def _needs_reference(operation: Operation) -> bool:
    request = operation.request
    as_ids = not isinstance(request.prompt, str) and all(isinstance(token, int) for token in request.prompt)
    shaped = bool(request.sampling.stop) or bool(request.sampling.echo)
    return not as_ids or shaped or not _can_be_forced(operation)


def _can_be_forced(operation: Operation) -> bool:
    choices = operation.ended.choices
    return operation.prompt_token_ids is not None and bool(choices) and all(choice.token_ids for choice in choices)


def _is_forcing(operation: Operation) -> bool:
    return operation.request.purpose is Purpose.FORCING


def _is_control(operation: Operation) -> bool:
    return operation.request.purpose is Purpose.CONTROL


def _references(history: History) -> set[str | None]:
    """Whose there are."""
    return {o.request.about for o in history.operations() if o.request.purpose is Purpose.REFERENCE}


def _most_in_flight(history: History) -> int:
    """Requests of the workloads that were in flight at one time, at most."""
    served = [o for o in history.operations() if o.request.of_load]
    moments = [(o.sent.at, 1) for o in served] + [(o.ended.at, -1) for o in served]
    together = np.cumsum([change for _, change in sorted(moments)])
    return int(together.max()) if len(together) else 0
