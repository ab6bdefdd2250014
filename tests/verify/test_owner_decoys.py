"""The owner of a wrong output, named by its blocks, a continuation and decoys, on histories made by hand.

First tokens have noise here, so that an owner is named only if the other tokens tell as well.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, forcing, gaussian, operations, prompt_of, read, with_end

from harness.history import Choice, Ended, Entry, History, Named, Outcome, RunEnded, Sent, TokenLogprob
from harness.scenario import Condition, Purpose, Request, Route, Sampling
from harness.verify.judging import outputs

VICTIM, OWNER, QUESTION = "load-05", "load-03", "load-05-blocks"
OTHERS = [f"load-{number:02d}" for number in range(32) if f"load-{number:02d}" != VICTIM]
CANDIDATES = OTHERS[:8]
DECOYS = ("load-00", "load-01", "load-02", VICTIM)
"""The last one is the victim's own prompt."""
LOOP = [49, 46] * 10
NOISE = 0.02


def vector_of(name: str) -> Named:
    rng = np.random.default_rng(list(map(ord, name)))
    return tuple((token, float(value)) for token, value in enumerate(rng.normal(scale=1.5, size=5) - 4.0, 40))


def near(vector: Named, by: float) -> Named:
    return tuple((token, value + by * (-1) ** token) for token, value in vector)


def asked_of(name: str) -> tuple[int, ...]:
    """A prompt with the last token of the question."""
    return (*prompt_of(name)[:-1], 9)


def owner_test(owner: str, vector: Named, answer: Readings | None = None, *, own: bool = False) -> Iterator[Entry]:
    """An owner test; a continuation if there is an ``answer``; a cache check with the owner's ``own`` prompt."""
    tokens = tuple(answer.tokens) if answer else (40,)
    name, prompt = f"{QUESTION}-{len(tokens)}-{own}-{owner}", prompt_of(owner)
    if not own:
        prompt = asked_of(owner)
    rows = tuple(TokenLogprob(token, -0.5, -2.0) for token in tokens)
    request = Request(
        name,
        prompt,
        Sampling(max_tokens=len(tokens)),
        Route.PREFILL,
        purpose=Purpose.OWNER_TEST,
        about=QUESTION,
        owner=owner,
    )
    yield Sent(3.0, request, "load", "owners", 3.0)
    choice = Choice(tokens, logprobs=rows)
    yield Ended(4.0, name, Outcome.OK, status=200, choices=(choice,), first_logprobs=vector)


def end(answer: Readings, owner: str, *, fits: bool, whole: bool = False) -> Iterator[Entry]:
    """The answer forced under the end of a prompt."""
    forced = answer.served if fits else answer.served - 6.0
    readings = replace(answer, forced=forced, forced_rival=answer.served - 0.5)
    prompt = asked_of(owner)
    for entry in forcing(QUESTION, prompt if whole else prompt[-4:], readings, owner):
        if isinstance(entry, Sent) and not whole:
            yield replace(entry, request=replace(entry.request, condition=Condition.PROMPT_END))
        else:
            yield entry


def question(answer: Readings) -> Iterator[Entry]:
    request = Request(
        QUESTION, asked_of(VICTIM), Sampling(max_tokens=20), Route.DECODE, purpose=Purpose.OWNER_TEST, about=VICTIM
    )
    yield Sent(2.5, request, "load", "owners", 2.5)
    choice, vector = Choice(tuple(answer.tokens)), near(vector_of(OWNER), NOISE / 2)
    yield Ended(2.6, QUESTION, Outcome.OK, status=200, choices=(choice,), first_logprobs=vector)


def history(answer: Readings, *more: Iterator[Entry], vectors: bool = True) -> History:
    """Right outputs, a wrong one that begins as under no prompt, and the answer to the question about its blocks."""
    rng = np.random.default_rng(1)
    wrong = read(rng, gaussian(1e-5))
    wrong.forced -= 5.0
    entries = list(operations(VICTIM, wrong, Route.PROXY))
    for name in OTHERS:
        entries += operations(name, read(rng, gaussian(1e-5)), Route.PROXY)
    for number in range(32):
        entries += operations(f"control-{number}", read(rng, gaussian(1e-5)), Route.DECODE, about=OTHERS[0])
    entries += question(answer)
    for found in more:
        entries += found
    past = History((*entries, RunEnded(9.0)))
    for name in OTHERS if vectors else ():
        past = with_end(past, name, first_logprobs=near(vector_of(name), NOISE), prefill_first=vector_of(name))
    return with_end(past, VICTIM, first_logprobs=vector_of("another"), prefill_first=vector_of(VICTIM))


def under_each(names: Collection[str]) -> list[Iterator[Entry]]:
    return [owner_test(name, vector_of(name)) for name in names]


def searched(
    answer: Readings,
    *,
    fitting: Collection[str] = (),
    decoys: Collection[str] = DECOYS,
    kept: Named = vector_of(OWNER),  # noqa: B008 - frozen
) -> History:
    """The whole search.

    ``fitting``: the decoys whose ends the answer continues. ``kept``: how the owner's own prompt goes on by the cache.
    """
    ends = [end(answer, name, fits=name in fitting) for name in decoys]
    return history(
        answer,
        owner_test(VICTIM, vector_of(VICTIM)),
        *under_each(CANDIDATES),
        owner_test(OWNER, vector_of(OWNER), answer),
        owner_test(OWNER, kept, own=True),
        *ends,
    )


def text(past: History) -> str:
    return outputs(DEPLOYMENT, past).findings[0].text


@pytest.fixture
def answer() -> Readings:
    return read(np.random.default_rng(42), gaussian(1e-5))


def test_a_continuation_and_the_ends_of_four_prompts_name_the_owner(answer: Readings) -> None:
    found = text(searched(answer))
    assert found.startswith(f"was answered with {OWNER}'s KV, as its blocks in the decode server's prefix cache show:")
    assert "all of its 20 tokens continue that prompt (probability by chance: " in found


def test_no_owner_is_named_if_the_candidate_goes_on_otherwise(answer: Readings) -> None:
    other = replace(answer, tokens=[*answer.tokens[:-3], 1, 2, 3])
    ends = [end(answer, name, fits=False) for name in DECOYS]
    past = history(
        answer,
        owner_test(VICTIM, vector_of(VICTIM)),
        *under_each(CANDIDATES),
        owner_test(OWNER, vector_of(OWNER), other),
        owner_test(OWNER, vector_of(OWNER), own=True),
        *ends,
    )
    assert "answered with" not in text(past)


@pytest.mark.parametrize("decoy", DECOYS)
def test_an_answer_that_continues_the_end_of_any_other_prompt_names_no_owner(answer: Readings, decoy: str) -> None:
    assert "answered with" not in text(searched(answer, fitting=[decoy]))


def test_a_loop_that_the_ends_of_other_prompts_go_on_with_names_no_owner(answer: Readings) -> None:
    """Prompts of many kinds end in it. The first token alone is too little, since first tokens have noise."""
    loop = replace(answer, tokens=list(LOOP))
    assert "answered with" not in text(searched(loop, fitting=DECOYS))


def test_fewer_than_three_decoys_show_too_little(answer: Readings) -> None:
    assert "answered with" in text(searched(answer, decoys=DECOYS[1:]))
    assert "answered with" not in text(searched(answer, decoys=DECOYS[2:]))


def test_an_answer_that_begins_as_its_own_prompt_does_is_right_and_shows_no_owner(answer: Readings) -> None:
    """The owner's prompt may have the same log-probabilities as the victim's."""
    ends = [end(answer, name, fits=False) for name in DECOYS]
    continued = (owner_test(OWNER, vector_of(OWNER), answer), owner_test(OWNER, vector_of(OWNER), own=True))
    more = (*under_each(CANDIDATES), *continued, *ends)
    # Iterators are read once.
    again = [list(one) for one in more]
    own = near(vector_of(OWNER), NOISE)
    assert "answered with" not in text(history(answer, owner_test(VICTIM, own), *map(iter, again)))
    # Nor is an owner named if the question's own prompt was not tested.
    assert "answered with" not in text(history(answer, *map(iter, again)))
    assert "answered with" in text(history(answer, owner_test(VICTIM, vector_of(VICTIM)), *map(iter, again)))


def test_a_continuation_from_a_cache_that_holds_the_kv_of_another_request_names_no_owner(answer: Readings) -> None:
    """The prefill server's cache answers the owner's own prompt otherwise than during the load."""
    assert "answered with" in text(searched(answer, kept=near(vector_of(OWNER), NOISE)))
    assert "answered with" not in text(searched(answer, kept=vector_of("another")))
    assert "answered with" not in text(searched(answer, kept=()))


@pytest.mark.parametrize(("owner_whole", "decoys_whole"), [(True, True), (True, False), (False, True)])
def test_where_tokens_are_the_only_evidence_ends_of_prompts_show_nothing(
    answer: Readings, owner_whole: bool, decoys_whole: bool
) -> None:
    """No vectors are known here: the question is forced, and so is its answer under the owner's prompt."""
    wrong = replace(answer, forced=answer.served - 5.0, forced_rival=answer.served)
    own = forcing(QUESTION, asked_of(VICTIM), wrong)
    decoys = [end(answer, name, fits=False, whole=decoys_whole) for name in DECOYS[:3]]
    past = history(answer, own, end(answer, OWNER, fits=True, whole=owner_whole), *decoys, vectors=False)
    assert ("answered with" in text(past)) is (owner_whole and decoys_whole)


def test_the_victims_own_prompt_does_not_count_as_a_tested_candidate(answer: Readings) -> None:
    past = history(answer, owner_test(VICTIM, vector_of(VICTIM)), *under_each(CANDIDATES))
    assert "(8 tested)" in text(past)
