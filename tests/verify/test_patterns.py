"""What wrong outputs have in common is said if it is improbable by chance, and otherwise not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import counted_run
import numpy as np
import pytest

from harness.facts import Role
from harness.history import Choice, Ended, Entry, History, Outcome, Sent
from harness.scenario import Request, Route, Sampling
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.patterns import MAX_CHANCE, at_least, said_patterns

BLOCK = 16
PREFILL, DECODE = (next(one for one in counted_run.DEPLOYMENT.servers if one.role is role) for role in Role)
TWO_BY_TWO = replace(
    counted_run.DEPLOYMENT,
    servers=tuple(
        replace(one, name=f"{one.role}-{number}", url=f"http://{one.role}{number}:8000")
        for one in (PREFILL, DECODE)
        for number in range(2)
    ),
)


def history(count: int, seed: int = 0, prompts: Sequence[tuple[int, ...]] | None = None) -> History:
    """Requests of 20 to 200 tokens, served by two prefill and two decode servers at random."""
    rng = np.random.default_rng(seed)
    entries: list[Entry] = []
    for number in range(count):
        prompt = prompts[number] if prompts else (number, *range(int(rng.integers(19, 200))))
        request = Request(f"r{number}", prompt, Sampling(max_tokens=1), route=Route.PROXY)
        servers = [f"http://{role}{rng.integers(2)}:8000" for role in (Role.PREFILL, Role.DECODE)]
        entries.append(Sent(float(number), request, "load", "load", float(number)))
        entries.append(
            Ended(
                number + 0.5,
                f"r{number}",
                Outcome.OK,
                choices=(Choice((1,)),),
                prefill_server=servers[0],
                decode_server=servers[1],
            )
        )
    return History(tuple(entries))


def said(past: History, wrong: Callable[[int, Ended], bool], first_wrong: Mapping[str, int] | None = None) -> list[str]:
    compared = [
        Compared(o.request.request_id, Match.MISMATCH if wrong(number, o.ended) else Match.EXACT)
        for number, o in enumerate(past.operations())
    ]
    return list(said_patterns(TWO_BY_TWO, past, compared, BLOCK, first_wrong or {}))


def every(step: int, most: int, condition: Callable[[int, Ended], bool]) -> Callable[[int, Ended], bool]:
    """Every ``step``-th output that meets a condition, ``most`` at most."""
    found: list[int] = []

    def wrong(number: int, ended: Ended) -> bool:
        if condition(number, ended):
            found.append(number)
            return len(found) % step == 0 and len(found) // step <= most
        return False

    return wrong


def test_a_server_that_decoded_all_wrong_outputs_is_named() -> None:
    past = history(200)
    texts = said(past, every(4, 16, lambda _, ended: ended.decode_server == "http://decode1:8000"))
    (text,) = [one for one in texts if "decode" in one]
    served = sum(o.ended.decode_server == "http://decode1:8000" for o in past.operations())
    assert text.startswith(
        f"all 16 wrong outputs were decoded by decode-1, as were {served} of 200 verified ones (probability by chance: "
    )


def test_a_pair_of_servers_is_named_rather_than_either() -> None:
    def from_0_to_1(_: int, ended: Ended) -> bool:
        return (ended.prefill_server, ended.decode_server) == ("http://prefill0:8000", "http://decode1:8000")

    texts = said(history(200), every(2, 12, from_0_to_1))
    assert any("were prefilled by prefill-0 and decoded by decode-1" in one for one in texts)


def test_a_single_pair_of_servers_is_no_pattern() -> None:
    past = history(200)
    alone = History(
        tuple(
            replace(one, prefill_server="http://prefill0:8000", decode_server="http://decode0:8000")
            if isinstance(one, Ended)
            else one
            for one in past.entries
        )
    )
    assert not said(alone, lambda number, _: number % 25 == 3)


def test_outputs_that_went_wrong_one_after_the_other_are_said_with_their_number() -> None:
    (text,) = said(history(200), lambda number, _: number in range(120, 132, 2))
    assert text.startswith("all 6 wrong outputs are among 11 verified ones that were sent in a row, of 200 (")


def test_early_outputs_are_said() -> None:
    texts = said(history(400), lambda number, _: number < 100 and number % 7 == 0)
    assert any("15 wrong outputs" in one and "among" in one for one in texts)


def test_prompts_of_whole_blocks_are_said() -> None:
    lengths = [16 * (1 + number % 9) if number % 8 == 0 else 17 + number % 140 for number in range(200)]
    past = history(200, prompts=[(number, *range(length - 1)) for number, length in enumerate(lengths)])
    texts = said(past, lambda number, _: lengths[number] % BLOCK == 0 and number % 3 == 0)
    assert any("had prompts of whole blocks of 16 tokens, as did" in one for one in texts)


def test_repeated_beginnings_are_said() -> None:
    prompts = [(number if number % 6 else 0, *range(40 + number % 50)) for number in range(200)]
    texts = said(history(200, prompts=prompts), lambda number, _: number % 18 == 0 and number > 20)
    assert any("began with a block that an earlier prompt has too" in one for one in texts)


def test_the_same_damaged_block_is_said() -> None:
    past = history(200, prompts=[(number, *range(100)) for number in range(200)])
    struck = {f"r{number}": 1 for number in range(0, 200, 25)}
    texts = said(past, lambda number, _: number % 25 == 0, struck)
    assert any("the first block is wrong" in one for one in texts)
    assert not said(past, lambda number, _: number % 25 == 0, {who: 1 + n % 6 for n, who in enumerate(struck)})


@pytest.mark.parametrize("count", [0, 3, 200])
def test_too_few_wrong_outputs_have_no_pattern_and_nor_have_all(count: int) -> None:
    assert not said(history(200), lambda number, _: number < count)


def test_outputs_that_were_not_verified_do_not_count() -> None:
    past = history(200)
    compared = [
        Compared(o.request.request_id, Match.MISMATCH if number < 8 else Match.LEFT_OUT)
        for number, o in enumerate(past.operations())
    ]
    assert not list(said_patterns(TWO_BY_TWO, past, compared, BLOCK, {}))


@pytest.mark.parametrize("draws", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_outputs_that_are_wrong_at_random_have_a_pattern_no_more_often_than_stated(draws: int) -> None:
    rng, past = np.random.default_rng(5), history(100)
    names = [o.request.request_id for o in past.operations()]
    alarms = 0
    for _ in range(draws):
        wrong = set(rng.choice(len(names), int(rng.integers(4, 20)), replace=False))
        blocks = {names[one]: int(rng.integers(1, 4)) for one in wrong}
        alarms += bool(said(past, lambda number, _, wrong=wrong: number in wrong, blocks))  # type: ignore[misc]
    # Of a Poisson number with this mean, four standard deviations more are seen once in tens of thousands of tests.
    expected = draws * MAX_CHANCE
    assert alarms <= expected + 4 * expected**0.5


def test_the_probability_is_that_of_drawing_without_return() -> None:
    drawn = list(combinations(range(12), 5))
    for found in range(6):
        share = sum(len({0, 1, 2, 3} & set(some)) >= found for some in drawn) / len(drawn)
        assert at_least(found, 5, 4, 12) == pytest.approx(share)
