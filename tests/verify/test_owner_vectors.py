"""The owner of a wrong output, found by the log-probabilities of first tokens, on histories made by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, forcing, gaussian, operations, prompt_of, read, with_end

from harness.history import Choice, Ended, Entry, History, Named, Outcome, RunEnded, Sent
from harness.scenario import Purpose, Request, Route, Sampling
from harness.verify.judging import outputs

VICTIM, OWNER = "load-05", "load-03"
OTHERS = [f"load-{number:02d}" for number in range(32) if f"load-{number:02d}" != VICTIM]
CANDIDATES = OTHERS[:8]
LOOP = [49, 46] * 10


def vector_of(name: str) -> Named:
    """Five tokens that any prompt may go on with; how likely each is depends on the prompt."""
    rng = np.random.default_rng(list(map(ord, name)))
    return tuple((token, float(value)) for token, value in enumerate(rng.normal(scale=1.5, size=5) - 4.0, 40))


def near(vector: Named, by: float) -> Named:
    return tuple((token, value + by * (-1) ** token) for token, value in vector)


def history(
    victim: Readings,
    vector: Named,
    *,
    tests: Mapping[str, Named] | None = None,
    own: Named | None = None,
    owner: Readings | None = None,
    fitting: str = OWNER,
) -> History:
    """Thirty-one right outputs and a wrong one that begins with ``vector``.

    ``tests``: other answers to owner tests, by candidate. ``own``: what the prefill server said to the victim's prompt.
    ``owner``: the owner's answer. ``fitting``: the candidate whose prompt the victim's answer continues.
    """
    rng = np.random.default_rng(1)
    entries = list(operations(VICTIM, victim, Route.PROXY))
    for name in OTHERS:
        readings = read(rng, gaussian(1e-5))
        entries += operations(name, owner if owner and name == OWNER else readings, Route.PROXY)
    for number in range(32):
        entries += operations(f"control-{number}", read(rng, gaussian(1e-5)), Route.DECODE, about=OTHERS[0])
    for name in CANDIDATES:
        entries += under(victim, name, (tests or {}).get(name, vector_of(name)), fits=name == fitting)
    past = History((*entries, RunEnded(9.0)))
    for name in OTHERS:
        past = with_end(past, name, first_logprobs=vector_of(name), prefill_first=vector_of(name))
    return with_end(past, VICTIM, first_logprobs=vector, prefill_first=own or vector_of(VICTIM))


def under(victim: Readings, name: str, vector: Named, who: str = VICTIM, *, fits: bool) -> Iterator[Entry]:
    """An owner test of one candidate, and the output forced under its prompt, which it continues or not."""
    prompt = (*prompt_of(name)[:-1], prompt_of(VICTIM)[-1])
    test = f"{who}-like-{name}"
    request = Request(
        test, prompt, Sampling(max_tokens=1), Route.PREFILL, purpose=Purpose.OWNER_TEST, about=who, owner=name
    )
    yield Sent(3.0, request, "load", "owners", 3.0)
    yield Ended(4.0, test, Outcome.OK, status=200, choices=(Choice((40,)),), first_logprobs=vector)
    forced, rival = (victim.served, victim.rival) if fits else (victim.served - 6.0, victim.served - 0.5)
    yield from forcing(who, prompt, replace(victim, forced=forced, forced_rival=rival), name)


def with_blocks_asked(past: History, answer: Readings, *, behind: float) -> History:
    """With the block question, answered from the owner's KV; ``behind`` nats from its own prompt's best."""
    who, prompt = f"{VICTIM}-blocks", prompt_of(VICTIM)
    request = Request(who, prompt, Sampling(max_tokens=20), Route.DECODE, purpose=Purpose.OWNER_TEST, about=VICTIM)
    choice = Choice(tuple(answer.tokens))
    entries: list[Entry] = [
        Sent(2.5, request, "load", "owners", 2.5),
        Ended(2.6, who, Outcome.OK, status=200, choices=(choice,), first_logprobs=near(vector_of(OWNER), 1e-5)),
        *forcing(who, prompt, replace(answer, forced=answer.served - behind, forced_rival=answer.served)),
    ]
    for name in CANDIDATES:
        entries += under(answer, name, vector_of(name), who, fits=name == OWNER)
    return History((*past.entries[:-1], *entries, RunEnded(9.0)))


def text(past: History) -> str:
    return outputs(DEPLOYMENT, past).findings[0].text


@pytest.fixture
def victim() -> Readings:
    """A wrong answer that is a loop: its tokens show next to nothing."""
    readings = read(np.random.default_rng(42), gaussian(1e-5))
    readings.forced -= 5.0
    readings.tokens = list(LOOP)
    return readings


def test_the_candidate_whose_first_token_has_the_same_log_probabilities_is_the_owner(victim: Readings) -> None:
    found = text(history(victim, near(vector_of(OWNER), 1e-5)))
    assert found.startswith(
        f"was answered with {OWNER}'s KV: its first token's log-probabilities are those of that request's prompt within"
    )
    assert (
        "all of its 20 tokens continue that prompt with the log-probabilities that it gives them (probability" in found
    )


def test_a_first_token_that_fits_two_candidates_names_neither(victim: Readings) -> None:
    twin = {CANDIDATES[0]: near(vector_of(OWNER), 3e-4)}
    assert "answered with" not in text(history(victim, vector_of(OWNER), tests=twin))


def test_a_first_token_that_also_fits_its_own_prompt_names_no_owner(victim: Readings) -> None:
    """The damage shows later in the answer, so that its beginning tells nothing."""
    assert "answered with" not in text(history(victim, vector_of(OWNER), own=near(vector_of(OWNER), 3e-4)))


def test_a_first_token_that_fits_no_candidate_names_no_owner(victim: Readings) -> None:
    assert "answered with" not in text(history(victim, vector_of("another")))


def test_tokens_that_fit_are_no_evidence_if_the_first_token_has_other_log_probabilities(victim: Readings) -> None:
    """All twenty tokens are the best ones under the candidate's prompt and under no other."""
    victim.tokens = read(np.random.default_rng(43), gaussian(1e-5)).tokens
    assert "answered with" not in text(history(victim, near(vector_of(OWNER), 0.05)))


def test_a_run_that_another_answer_shares_is_no_evidence_if_its_owner_is_ruled_out(victim: Readings) -> None:
    owner = read(np.random.default_rng(44), gaussian(1e-5))
    victim.tokens = list(owner.tokens)
    shared = text(history(victim, vector_of(OWNER), owner=owner, fitting="none"))
    assert f"was answered with {OWNER}'s KV: 20 tokens in a row are from that request's answer" in shared
    assert "answered with" not in text(history(victim, vector_of("another"), owner=owner, fitting="none"))


def test_the_victims_blocks_asked_again_show_the_owner_where_its_answer_does_not(victim: Readings) -> None:
    """The last block was the victim's own, so that its answer begins as under no prompt."""
    past = history(victim, vector_of("another"))
    assert "answered with" not in text(past)
    found = text(with_blocks_asked(past, victim, behind=5.0))
    assert found.startswith(
        f"was answered with {OWNER}'s KV, as its blocks in the decode server's prefix cache show: its"
    )


def test_blocks_that_answer_rightly_show_no_owner(victim: Readings) -> None:
    """The owner's prompt may have the same log-probabilities as the victim's."""
    past = history(victim, vector_of("another"))
    assert "answered with" not in text(with_blocks_asked(past, victim, behind=0.0))


def test_candidates_of_the_blocks_count_as_tested(victim: Readings) -> None:
    past = history(victim, vector_of("another"))
    wrong = replace(victim, served=victim.served - 3.0)
    assert "(8 tested)" in text(with_blocks_asked(past, wrong, behind=0.0))
