"""The predictions of a run's counters, and where they may come from besides this process.

They take most of the time of judging, and depend on no request after the last counted phase. So they can be made while
the answers are still being verified, by a process that reads the run's journal (``harness/beside``). Predictions that
come from elsewhere are used only if they were made from the very operations and facts that are judged.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import blake2b

from harness.facts import Deployment
from harness.history import Ended, Entry, History, Operation, Scraped, ScrapeFailed, Sent
from harness.memo import once
from harness.oracle import PhaseKey, Prediction, ServerExpectation, predict
from harness.redact import redact_deployment
from harness.scenario import Prompt, Purpose

BEFORE, AFTER = "before", "after"
Expected = Mapping[PhaseKey, Mapping[str, ServerExpectation]]
"""By how much the counters must grow in each phase, by the name of a server or role."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions, and what they were made from."""

    deployment: Deployment
    """Without credentials, as it is stored."""
    operations: bytes
    """As :func:`digest_of` makes it."""
    expected: Expected

    def fit(self, deployment: Deployment, operations: Sequence[Operation]) -> bool:
        """Whether they were made from these facts and these operations."""
        return self.deployment == redact_deployment(deployment) and self.operations == digest_of(operations)


Source = Callable[[], Predictions | None]
"""Returns predictions that were made elsewhere, after waiting for them if need be; None if there are none."""

_source: ContextVar[Source | None] = ContextVar("_source", default=None)


@contextmanager
def predictions_from(source: Source | None) -> Iterator[None]:
    """Meanwhile, ``source`` is asked for predictions before they are made here."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def predicted(
    deployment: Deployment,
    history: History,
    disturbed: Collection[str] = (),
    since: Callable[[Sequence[Operation]], Iterable[Operation]] = iter,
) -> Expected:
    """Predictions of the counted phases.

    ``disturbed``: names of servers that other clients asked, too, or whose caches a fault may have changed. ``since``:
    leaves out operations, or changes how they ended.
    """
    operations: Sequence[Operation] = list(since(predictable(history)))
    if disturbed:
        operations = tokenized(operations, history)
    source = None if disturbed else _source.get()
    made = source() if source is not None else None
    if made is not None and made.fit(deployment, operations):
        return made.expected
    return predict(deployment, operations, disturbed)


def tokenized(operations: Sequence[Operation], history: History) -> Sequence[Operation]:
    """The operations; those that were not answered have the tokens that an equal prompt of the history has.

    A fault cuts requests whose prompts are texts or messages, and only an answer says how these are tokenized.
    """
    untold = {_asked(one) for one in operations if not one.prompt_tokens}
    if not untold:
        return operations
    answers = (one for one in history.operations() if one.ended.prompt_token_ids is not None)
    told = {_asked(one): one.ended.prompt_token_ids for one in answers if _asked(one) in untold}
    return [one if one.prompt_tokens else _with_tokens(one, told.get(_asked(one))) for one in operations]


def _asked(operation: Operation) -> tuple[str, Prompt]:
    return operation.request.endpoint, operation.request.prompt


def _with_tokens(operation: Operation, tokens: tuple[int, ...] | None) -> Operation:
    return replace(operation, ended=replace(operation.ended, prompt_token_ids=tokens))


class Along:
    """Makes predictions while a run goes on: each operation is added as soon as it and all before it have ended.

    ``deployment``: without credentials.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._begun: deque[Sent] = deque()
        """Requests from the first one on that has not ended."""
        self._ends: dict[str, Ended] = {}
        self._added: list[Operation] = []
        self._prediction: Prediction | None = Prediction(deployment)

    def see(self, entry: Entry) -> None:
        """The history's next entry."""
        if isinstance(entry, Sent):
            self._begun.append(entry)
        elif isinstance(entry, Ended):
            self._ends[entry.request_id] = entry
        while self._begun and (ended := self._ends.pop(self._begun[0].request.request_id, None)) is not None:
            self._add(Operation(self._begun.popleft(), ended))

    def _add(self, operation: Operation) -> None:
        if self._prediction is not None and operation.request.purpose is not Purpose.SALT_TEST:
            self._prediction.add(operation)
            self._added.append(operation)

    def predictions(self, history: History) -> Predictions:
        """Predictions for the history so far; from the second time on, all is done anew."""
        operations = predictable(history)
        begun, self._prediction = self._prediction, None
        if not _begin(operations, self._added):
            begun = None
        if begun is None:
            expected = predict(self._deployment, operations)
        else:
            for operation in operations[len(self._added) :]:
                begun.add(operation)
            expected = begun.expected()
        self._added = []
        return Predictions(self._deployment, digest_of(operations), expected)


def _begin(operations: Sequence[Operation], first: Sequence[Operation]) -> bool:
    """Whether the operations begin with the first ones."""
    same = (one.sent is other.sent and one.ended is other.ended for one, other in zip(operations, first, strict=False))
    return len(first) <= len(operations) and all(same)


def predictable(history: History) -> Sequence[Operation]:
    """The operations that change the counters of counted phases, in the order in which they were sent.

    Left out are requests after the last counted phase, and the salt test: no later request hits its blocks, which are
    evicted first because they are the oldest.
    """
    counted = set(counted_phases(history))
    asked = (operation for operation in history.operations() if operation.request.purpose is not Purpose.SALT_TEST)
    operations = sorted(asked, key=lambda operation: operation.sent.at)
    ends = [n for n, one in enumerate(operations, 1) if (one.sent.scenario, one.sent.phase) in counted]
    return operations[: max(ends, default=0)]


def digest_of(operations: Sequence[Operation]) -> bytes:
    """Differs if an operation is missing, is another one, or ended in another way."""
    digest = blake2b(digest_size=16)
    for one in operations:
        ended = one.ended
        facts = (one.request.request_id, one.sent.at, ended.at, ended.outcome.value, ended.output_tokens)
        digest.update(repr(facts).encode())
    return digest.digest()


@once
def counted_phases(history: History) -> tuple[PhaseKey, ...]:
    """The phases of which counters were read, or were to be read, in order."""
    readings = (entry for entry in history.entries if isinstance(entry, Scraped | ScrapeFailed))
    return tuple(dict.fromkeys((one.scenario, one.phase) for one in readings if one.label in (BEFORE, AFTER)))
