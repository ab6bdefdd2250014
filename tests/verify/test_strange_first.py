"""What is asked first: outputs and prompts whose first token is strange; others are drawn as if none were strange."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from first_tokens import load, with_first_tokens
from forced_histories import gaussian, operations, read, run

from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Outcome, Sent, Usage
from harness.scenario import Condition, Phase, Purpose, Request, Route
from harness.verify.asking import VERIFICATION, VerifyOptions, VerifyPolicy, verified
from harness.verify.asking.forcing import first_forced, forced
from harness.verify.asking.options import Phases, Verification
from harness.verify.asking.policy import DEFAULT, sizes
from harness.verify.asking.probe import cache_probes, strange_probed, suspects_probed
from harness.verify.judging import doubtful, wrong_outputs

COUNT = 2000
FEW = [1999, 3, 500, 1200, 42, 777, 13, 1500, 1000, 256]
PREFIXES = (8, 16, 24)
"""Tokens of the whole blocks of prompts of 30 tokens."""


def verification(policy: str = DEFAULT, *, block_size: int = 8, blocks: int | None = None) -> Verification:
    servers = tuple(
        Server(f"{role}-0", role, f"http://{role}", block_size=block_size, num_blocks=blocks) for role in Role
    )
    how = VerifyOptions(policy=VerifyPolicy.parse(policy), concurrency=8, salt="s")
    return Verification(Deployment(servers, "http://proxy", "m", launched=True), how)


def strange(numbers: Iterable[int]) -> dict[str, float]:
    """Differences in nats, the first one largest."""
    return {f"r{number}": 1.0 / (place + 1) for place, number in enumerate(numbers)}


def noisy(first: Iterable[int]) -> dict[str, float]:
    """Differences in all 2,000 first tokens, the largest in these."""
    return {f"r{number}": 1e-3 + number * 1e-8 for number in range(COUNT)} | strange(first)


def sent(phases: Phases) -> tuple[Request, ...]:
    (phase,) = phases
    return phase.requests


def names(asked: Iterable[Request], condition: Condition | None) -> list[str]:
    return [str(one.about) for one in asked if one.condition is condition]


def drawn_names(apart: Mapping[str, float], policy: str = DEFAULT) -> list[str]:
    return [o.request.request_id for o in verification(policy).drawn(load(COUNT, apart))]


def test_strange_outputs_are_forced_first_and_marked_and_drawn_ones_follow_unmarked() -> None:
    asked = sent(forced(verification(), load(COUNT, strange(FEW))))
    marked, drawn = names(asked, Condition.SUSPECT), names(asked, None)
    assert names(asked[: len(marked)], Condition.SUSPECT) == marked
    assert marked == [name for name in strange(FEW) if name not in drawn]
    assert len(marked) >= 8
    assert {*marked, *drawn} >= set(strange(FEW))


def test_a_strange_output_that_was_drawn_at_random_is_no_suspect() -> None:
    victim = drawn_names({})[5]
    asked = sent(forced(verification(), load(COUNT, {victim: 0.5})))
    assert names(asked, Condition.SUSPECT) == []
    assert victim in names(asked, None)
    first = sent(first_forced(verification(), load(COUNT, {victim: 0.5})))
    assert {one.condition for one in first} == {None}


def test_strange_outputs_that_were_drawn_are_forced_before_other_drawn_ones_but_unmarked() -> None:
    numbers = [*FEW, *(int(name[1:]) for name in drawn_names({})[40:45])]
    asked = sent(forced(verification(), load(COUNT, strange(numbers))))
    assert {one.about for one in asked[: len(numbers)]} == set(strange(numbers))
    assert len(names(asked[: len(numbers)], None)) >= 5


def test_which_outputs_are_drawn_does_not_depend_on_which_are_strange() -> None:
    clean = drawn_names(noisy(()))
    # The strange outputs are those of even numbers, and then just those that were drawn before.
    for numbers in (range(0, 80, 2), [int(name[1:]) for name in clean[:40]]):
        # So many first tokens beyond the noise leave more of the budget for owners, but the order stays the same.
        assert drawn_names(noisy(numbers)) == clean[:48] != clean
    assert drawn_names(noisy(range(3))) == clean
    exact = drawn_names({})
    assert exact == clean[: len(exact)] == drawn_names(strange(FEW))


def test_where_first_tokens_are_equal_to_the_last_bit_48_are_drawn() -> None:
    assert len(drawn_names({})) == len(drawn_names(strange(FEW))) == 48
    # 140 of the average requests that 10 % and its floor allow are for these: 106 forcings and 17 controls, made and
    # forced. Two in a hundred outputs are strange.
    assert len(drawn_names(noisy(()))) == 106 - 40


@pytest.mark.parametrize("policy", [DEFAULT, "budget:20%"])
def test_at_most_half_of_the_forced_outputs_are_strange_ones(policy: str) -> None:
    history = load(COUNT, strange(range(200)))
    every = sizes(verification(policy).how.policy, [35] * COUNT, 5 * COUNT, 8).drawn
    suspects = verification(policy).suspects(history)
    assert len(suspects) == every // 2
    drawn = drawn_names(strange(range(200)), policy)
    left = [name for name in strange(range(200)) if name not in drawn]
    assert [o.request.request_id for o in suspects] == left[: every // 2]


@pytest.mark.parametrize("policy", ["all", "sample:1000"])
def test_without_a_budget_none_is_a_suspect(policy: str) -> None:
    asked = sent(forced(verification(policy), load(COUNT, strange(FEW))))
    assert {one.condition for one in asked} == {None}
    assert len({one.about for one in asked}) == (COUNT if policy == "all" else 1000)


def prefixes(asked: Iterable[Request]) -> list[tuple[str, int]]:
    """The probed prompts at the decode server, each with its number of tokens in whole blocks."""
    return [(str(one.about), len(one.prompt) - 1) for one in asked if one.route is Route.DECODE]


def test_prefixes_of_strange_prompts_are_probed_first() -> None:
    history = load(COUNT, strange([3, 500]))
    asked = prefixes(sent(cache_probes(verification(), history)))
    assert set(asked) >= {(name, size) for name in ("r3", "r500") for size in PREFIXES}
    assert len({name for name, _ in asked}) > 2
    many = prefixes(sent(cache_probes(verification(), load(COUNT, strange(FEW)))))
    assert {name for name, _ in many} <= set(strange(FEW))


def answered(history: History, phases: Iterable[Phase], cached: Callable[[Request], int | None]) -> History:
    """The history with answers whose usage reports so many cached tokens."""
    entries: list[Entry] = []
    for phase in phases:
        for asked in phase.requests:
            usage = Usage(len(asked.prompt), 1, cached_tokens=cached(asked))
            entries.append(Sent(50.0, asked, VERIFICATION, phase.name, 50.0))
            entries.append(
                Ended(50.001, asked.request_id, Outcome.OK, status=200, choices=(Choice((1,)),), usage=usage)
            )
    return History((*history.entries, *entries))


def nothing(_request: Request) -> int | None:
    return 0


def test_all_prefixes_of_strange_prompts_are_probed_once() -> None:
    history = load(COUNT, strange(FEW))
    first = cache_probes(verification(), history)
    rest = strange_probed(verification(), answered(history, first, nothing))
    both = [*prefixes(sent(first)), *prefixes(sent(rest))]
    assert sorted(both) == sorted((name, size) for name in strange(FEW) for size in PREFIXES)
    assert strange_probed(verification(), answered(answered(history, first, nothing), rest, nothing)) == ()
    assert strange_probed(verification(), load(COUNT)) == ()


def test_strange_prompts_whose_blocks_decode_no_longer_has_are_not_probed() -> None:
    def at_its_place(entry: Entry) -> Entry:
        return replace(entry, at=float(entry.request_id[1:])) if isinstance(entry, Ended) else entry

    history = History(tuple(map(at_its_place, load(COUNT, strange(FEW)).entries)))
    # 35 tokens each: 500 requests after r1499 fill 17,500 tokens.
    for blocks, oldest in ((35 * 500 // 8 + 1, 1499), (35 * 500 // 8 - 1, 1500)):
        asked = prefixes(sent(strange_probed(verification(blocks=blocks), history)))
        assert {name for name, _ in asked} == {f"r{number}" for number in FEW if number >= oldest}


@pytest.mark.parametrize("moved", [0.08, 0.04])
def test_all_prefixes_of_prompts_whose_outputs_look_wrong_or_doubtful_are_probed(moved: float) -> None:
    """With normal noise of 0.01 nats, 0.08 nats in every token is wrong and 0.04 is doubtful."""

    rng, noise = np.random.default_rng(1), gaussian(0.01)
    victim = read(rng, noise)
    victim.served -= moved
    victim.rival -= moved
    clean = run(noise)
    history = with_first_tokens(History((*clean.entries, *operations("a-victim", victim, Route.PROXY))))
    assert (wrong_outputs(history) or doubtful(history)) == ("a-victim",)
    asked = sent(suspects_probed(verification(block_size=2), history))
    # A prompt has a token, the letters of its name and another token.
    assert prefixes(asked) == [("a-victim", size) for size in (2, 4, 6, 8)]
    assert suspects_probed(verification(block_size=2), clean) == ()


def probes_sent(cached: Callable[[Request], int | None], apart: Mapping[str, float]) -> Iterator[set[str]]:
    """The prompts probed in each phase of probes before outputs are forced."""
    past, plan = [load(COUNT, apart)], verification("budget:20%")
    for scenario in verified([], plan.deployment, lambda: past[-1], plan.how):
        past.append(answered(past[-1], scenario.phases, cached))
        if any(one.purpose is Purpose.FORCING for one in scenario.phases[0].requests):
            return
        probes = [one for one in scenario.phases[0].requests if one.purpose is Purpose.PROBE]
        if probes:
            yield {name for name, _ in prefixes(probes)}


def share(part: float) -> Callable[[Request], int | None]:
    """Caches that still hold this part of every probed prompt."""
    return lambda request: round(part * len(request.prompt)) if request.purpose is Purpose.PROBE else 0


@pytest.mark.parametrize("part", [0.0, 0.4])
def test_caches_that_lost_the_loads_blocks_are_probed_no_further_except_for_strange_prompts(part: float) -> None:
    (first,) = probes_sent(share(part), {})
    assert 0 < len(first) <= 16
    before, after = probes_sent(share(part), strange(FEW))
    assert after <= set(strange(FEW)) == before | after


@pytest.mark.parametrize("cached", [share(0.6), share(1.0), lambda _request: None])
def test_caches_that_hold_the_blocks_or_report_nothing_are_probed_further(
    cached: Callable[[Request], int | None],
) -> None:
    first, more, *_ = probes_sent(cached, {})
    assert len(more) > 2 * len(first)
