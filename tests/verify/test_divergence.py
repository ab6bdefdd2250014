"""Where an output leaves what its prompt has, as people are shown it."""

from dataclasses import replace

import forced_histories as made
import pytest

from harness.history import Choice, Ended, Entry, History, Outcome, Sent
from harness.scenario import Purpose, Request, Route
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.divergence import Divergence, divergences, spellings
from harness.verify.judging.evidence import look_at_outputs

WRONG = "load-3"
AT = 7


def _damage(name: str, readings: made.Readings) -> None:
    """The token at AT is served although another one leads by far in its forcing."""
    if name == WRONG:
        readings.forced[AT], readings.forced_rival[AT] = -9.0, -0.5


def _quiet() -> History:
    return made.run(made.gaussian(1e-6), outputs=12, controls=12, damage=_damage)


def _of(history: History, who: str = WRONG) -> Divergence:
    compared = next(one for one in look_at_outputs(history).compared if one.request_id == who)
    return divergences(history, [compared])[who]


def test_the_first_wrong_token_is_shown_with_its_figures() -> None:
    found = _of(_quiet())
    here = next(one for one in found.around if one.index == found.at)
    assert (found.at, found.differs) == (AT, True)
    assert here.regret == pytest.approx(8.5)
    assert (here.forced_logprob, here.best_logprob) == (-9.0, -0.5)
    assert here.best != here.served


def test_the_tokens_around_are_those_that_were_served() -> None:
    history = _quiet()
    served = next(o for o in history.operations() if o.request.request_id == WRONG).ended.choices[0].token_ids
    found = _of(history)
    assert tuple(one.served for one in found.around) == served[: AT + 13]
    assert [one.index for one in found.around] == list(range(min(len(served), AT + 13)))


def test_of_an_output_without_a_wrong_token_the_largest_drift_is_shown() -> None:
    def damage(name: str, readings: made.Readings) -> None:
        if name == WRONG:
            readings.served[:], readings.rival[:] = -0.1, -3.0
            readings.forced[:], readings.forced_rival[:] = -0.1, -3.0
            readings.forced[11] = -0.6

    history = made.run(made.gaussian(1e-6), outputs=12, controls=12, damage=damage)
    found = divergences(history, [Compared(WRONG, Match.MISMATCH, "its KV is not that of its prompt")])[WRONG]
    assert (found.at, found.differs) == (11, False)


def _reference(history: History, tokens: tuple[int, ...]) -> list[Entry]:
    subject = next(o for o in history.operations() if o.request.request_id == WRONG)
    request = Request("again", subject.request.prompt, route=Route.PREFILL, purpose=Purpose.REFERENCE, about=WRONG)
    ended = Ended(8.0, "again", Outcome.OK, status=200, choices=(Choice(tokens, "right words"),))
    return [Sent(7.0, request, "load", "reference", 7.0), ended]


def test_a_reference_goes_on_in_its_own_way() -> None:
    history = _quiet()
    served = next(o for o in history.operations() if o.request.request_id == WRONG).ended.choices[0].token_ids
    right = (*served[:AT], 9001, 9002)
    found = _of(History((*history.entries[:-1], *_reference(history, right), history.entries[-1])))
    assert found.right is not None
    assert (found.right.token_ids, found.right_from, found.right_differs_at) == (right, Purpose.REFERENCE, AT)


def _spelled(entry: Entry, end: object) -> Entry:
    assert isinstance(entry, Ended)
    assert isinstance(end, tuple)
    return replace(entry, prompt_end=tuple(f" t{token}" for token in end))


def test_tokens_are_spelled_as_at_the_ends_of_forced_prompts() -> None:
    history = _quiet()
    ends = {id(o.ended): o.request.prompt[-5:] for o in history.operations() if o.request.purpose is Purpose.FORCING}
    entries = (_spelled(entry, ends[id(entry)]) if id(entry) in ends else entry for entry in history.entries)
    spelled = spellings(History(tuple(entries)), {WRONG})
    served = next(o for o in history.operations() if o.request.request_id == WRONG).ended.choices[0].token_ids
    assert [spelled[token] for token in served[-5:]] == [f" t{token}" for token in served[-5:]]
    assert all(text == f" t{token}" for token, text in spelled.items())


def test_an_answer_without_token_ids_has_no_divergence() -> None:
    history = made.with_end(_quiet(), WRONG, choices=(Choice((), "words"),))
    assert divergences(history, [Compared(WRONG, Match.UNVERIFIED)]) == {}
