"""The tokens of an answer that ended early are the beginning of the right answer, or the output is wrong."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import counted_run
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Damage, Readings, gaussian, prompt_of, run, with_end, with_sampling
from sim_history import SimRun, load

from harness.history import Choice, Ended, Ending, Entry, History, Operation, Outcome, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Sampling
from harness.sim import Noise, PlantedBug, SimConfig, SimPair
from harness.verdict import FindingKind, Verdict
from harness.verify.judging import count_outputs, look_at_outputs, outputs, wrong_outputs
from harness.verify.judging.compared import Match
from harness.verify.judging.partial import is_partial

WHO = "load-3"
TOKENS = 7
BEGUN = [Ending.LEFT, Ending.CUT, Ending.TIMED_OUT, Ending.ERROR_INSIDE, Ending.UNFINISHED]


def cut(ended: Ended, tokens: int = TOKENS, ending: Ending = Ending.LEFT) -> Ended:
    """The operation's end if its answer had ended after so many tokens."""
    choices = [replace(c, token_ids=c.token_ids[:tokens], logprobs=c.logprobs[:tokens]) for c in ended.choices]
    begun = tuple(replace(choice, finish_reason=None) for choice in choices if tokens)
    return replace(ended, outcome=Outcome.INFO, ending=ending, choices=begun, usage=None)


def with_cut(history: History, who: Iterable[str], tokens: int = TOKENS, ending: Ending = Ending.LEFT) -> History:
    """The history, in which these answers ended early, and were teacher-forced as far as they came."""
    names = set(who)
    prompts = {name: prompt_of(name) for name in names}

    def changed(entry: Entry) -> Entry:
        if isinstance(entry, Ended) and entry.request_id in names:
            return cut(entry, tokens, ending)
        if isinstance(entry, Sent) and entry.request.purpose is Purpose.FORCING and entry.request.about in names:
            prompt, length = entry.request.prompt, len(prompts[str(entry.request.about)]) + tokens
            return replace(entry, request=replace(entry.request, prompt=prompt[:length]))
        return entry

    return History(tuple(map(changed, history.entries)))


def match_of(history: History, who: str = WHO) -> tuple[Match, int | None, str]:
    one = next(one for one in look_at_outputs(history).compared if one.request_id == who)
    return one.match, one.first, one.text


def wrong_from(at: int) -> Damage:
    """Damage to WHO: its token of this index is far behind the best one."""

    def damage(name: str, readings: Readings) -> None:
        if name == WHO:
            readings.forced[at] -= 5.0

    return damage


@pytest.mark.parametrize("ending", BEGUN)
def test_a_right_beginning_is_right(ending: Ending) -> None:
    history = with_cut(run(gaussian(0.01), seed=1), [WHO], ending=ending)
    assert match_of(history)[0] in (Match.EXACT, Match.TIE)
    assert count_outputs(history).requests == 64
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID


@pytest.mark.parametrize("ending", BEGUN)
def test_a_wrong_token_before_the_end_makes_the_run_invalid(ending: Ending) -> None:
    history = with_cut(run(gaussian(0.01), seed=1, damage=wrong_from(4)), [WHO], ending=ending)
    match, first, text = match_of(history)
    assert (match, first) == (Match.MISMATCH, 4)
    assert text.endswith(f"its answer ended early ({ending}), after 7 tokens")
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.INVALID
    (finding,) = check.findings
    assert (finding.kind, finding.request, finding.token) == (FindingKind.WRONG_OUTPUT, WHO, 4)


def test_what_was_not_served_is_not_judged() -> None:
    history = with_cut(run(gaussian(0.01), seed=1, damage=wrong_from(TOKENS)), [WHO])
    assert match_of(history)[0] in (Match.EXACT, Match.TIE)


@pytest.mark.parametrize("sampling", [{"min_tokens": 20}, {"stop": ("never",), "ignore_eos": True}])
@pytest.mark.parametrize("reason", [None, "length", "stop", "abort"])
def test_neither_its_length_nor_its_end_is_judged(sampling: dict[str, object], reason: str | None) -> None:
    """The last chunk of a stream may have arrived, and one before it may be missing."""
    history = with_sampling(with_cut(run(gaussian(0.01), seed=1), [WHO], ending=Ending.UNFINISHED), WHO, **sampling)
    (choice,) = next(e for e in history.of(Ended) if e.request_id == WHO).choices
    history = with_end(history, WHO, choices=(replace(choice, finish_reason=reason),))
    assert match_of(history)[0] in (Match.EXACT, Match.TIE)


def test_it_may_not_be_longer_than_it_was_to_be() -> None:
    history = with_sampling(with_cut(run(gaussian(0.01), seed=1), [WHO]), WHO, max_tokens=6)
    match, _, text = match_of(history)
    assert match is Match.MISMATCH
    assert text.startswith("it has 7 tokens, and at most 6 were requested")


def test_a_forcing_that_failed_is_unknown() -> None:
    history = with_cut(run(gaussian(0.01), seed=1), [WHO])
    failed = {f"{WHO}-teacher"}
    entries = (
        replace(e, outcome=Outcome.INFO, prompt_logprobs=None) if isinstance(e, Ended) and e.request_id in failed else e
        for e in history.entries
    )
    assert match_of(History(tuple(entries)))[0] is Match.UNVERIFIED


def without_verification(history: History, who: str) -> History:
    """As runs were stored when answers that ended early were not verified."""
    names = {one.request_id for e in history.of(Sent) if (one := e.request).about == who}
    entries = tuple(
        e
        for e in history.entries
        if not (isinstance(e, Sent) and e.request.request_id in names)
        and not (isinstance(e, Ended) and e.request_id in names)
    )
    return History(entries)


def test_runs_that_did_not_verify_such_answers_are_judged_as_before() -> None:
    history = without_verification(with_cut(run(gaussian(0.01), seed=1, damage=wrong_from(4)), [WHO]), WHO)
    assert WHO not in {one.request_id for one in look_at_outputs(history).compared}
    assert count_outputs(history).requests == 63
    assert outputs(DEPLOYMENT, history).verdict is Verdict.VALID


# --- what counts as a beginning ---


def ended_as(**fields: object) -> Operation:
    sampling = Sampling(20, n=fields.pop("n", None))  # type: ignore[arg-type]  # an int
    status = fields.pop("expect_status", None)
    request = Request("r", (1, 2), sampling, expect_status=status)  # type: ignore[arg-type]  # an int
    end = {"outcome": Outcome.INFO, "status": 200, "choices": (Choice((7, 8)),), "ending": Ending.CUT} | fields
    return Operation(Sent(0.0, request, "s", "load", 0.0), Ended(1.0, "r", **end))  # type: ignore[arg-type]


def test_what_is_a_beginning() -> None:
    assert is_partial(ended_as())
    assert is_partial(ended_as(n=2, choices=(Choice((7,)), Choice((8, 9)))))
    assert not is_partial(ended_as(outcome=Outcome.OK, ending=Ending.COMPLETED)), "a whole answer"
    assert not is_partial(ended_as(choices=())), "no tokens"
    assert not is_partial(ended_as(choices=(Choice((), "some text"),))), "no token ids"
    assert not is_partial(ended_as(n=2)), "nobody knows which of the two choices it is"
    assert not is_partial(ended_as(ending=Ending.REFUSED, status=500))
    assert not is_partial(ended_as(expect_status=400)), "must be refused"


# --- beside a reference ---

PROMPT = counted_run.PROMPTS[0]


def referenced(served: tuple[int, ...], right: tuple[int, ...]) -> History:
    """An answer that ended early after these tokens, and the tokens of its reference."""

    def rows(tokens: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
        return tuple(TokenLogprob(token, -0.1, -0.9) for token in tokens)

    partial = counted_run.operation(
        counted_run.request(0),
        outcome=Outcome.INFO,
        ending=Ending.CUT,
        choices=(Choice(served, "x" * len(served), logprobs=rows(served)),),
        usage=None,
    )
    reference = counted_run.reference(0, choices=(Choice(right, "x" * len(right), logprobs=rows(right)),))
    return History((*partial, *counted_run.operation(counted_run.request(1)), *reference, *counted_run.reference(1)))


@pytest.mark.parametrize(
    ("served", "right", "match"),
    [
        ((7, 8), (7, 8, 9, 10, 11), Match.EXACT),
        ((7, 9), (7, 8, 9, 10, 11), Match.MISMATCH),
        ((7, 8, 9), (7, 8), Match.MISMATCH),
    ],
)
def test_a_reference_must_begin_with_it(served: tuple[int, ...], right: tuple[int, ...], match: Match) -> None:
    assert match_of(referenced(served, right), "r0")[0] is match


# --- asked and judged on the simulated pair ---

SIM = replace(
    counted_run.DEPLOYMENT, servers=tuple(replace(one, block_size=16) for one in counted_run.DEPLOYMENT.servers)
)


def with_clients_that_left(run: SimRun, every: int = 2) -> set[str]:
    """Every second answer of the load that came through the pair ends after seven tokens; their ids."""
    served = [i for i, e in enumerate(run.entries) if isinstance(e, Ended) and e.outcome is Outcome.OK][::every]
    for place in served:
        ended = run.entries[place]
        assert isinstance(ended, Ended)
        run.entries[place] = cut(ended)
    return {entry.request_id for place in served if isinstance(entry := run.entries[place], Ended)}


# Two tests check the same run.
@cache
def simulated(*bugs: PlantedBug, count: int = 64) -> tuple[History, set[str]]:
    run = SimRun(SimPair(SimConfig(bugs=bugs, seed=1, noise=Noise(flip_rate=0.0)), lambda: 0.0))
    run.run(load(count, seed=1))
    left = with_clients_that_left(run)
    return run.verify("all", seed=1), left


def test_every_beginning_is_asked_for_and_right() -> None:
    history, left = simulated(count=24)
    forced = {o.request.about for o in history.operations() if o.request.purpose is Purpose.FORCING}
    assert left <= forced
    counts = count_outputs(history)
    assert (counts.requests, counts.mismatch, counts.unverified) == (24, 0, 0)
    assert outputs(SIM, history).verdict is Verdict.VALID


@pytest.mark.slow
def test_wrong_beginnings_of_a_planted_bug_are_found() -> None:
    history, left = simulated(PlantedBug("foreign_blocks"))
    wrong = set(wrong_outputs(history))
    assert wrong & left
    assert wrong - left
    assert outputs(SIM, history).verdict is Verdict.INVALID


@pytest.mark.slow
def test_the_owner_of_a_wrong_output_may_be_a_request_whose_client_left() -> None:
    history, left = simulated(PlantedBug("foreign_blocks"))
    tested = {o.request.owner for o in history.operations() if o.request.purpose is Purpose.OWNER_TEST}
    assert tested & left
