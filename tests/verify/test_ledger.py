"""The ledger of verification, with figures from another road: counted by hand, or summed request by request."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.history import Choice, Ended, Entry, History, Outcome, Sent, VerificationPlanned
from harness.scenario import Phase, Purpose, Request, Sampling
from harness.verify.asking.ledger import EVERYTHING, Ledger, Mark, Rates
from harness.verify.asking.policy import Budget
from harness.verify.judging.cost import CACHED, Cost, load_cost, verification_cost

HALF = Mark(0.5, 0.5)
NOT_SEEN = dict.fromkeys((Purpose.PROBE, Purpose.OWNER_TEST))
"""No request has shown yet whether caches still have the blocks of the load."""


def request(name: str, purpose: Purpose, prompt: int, output: int = 1) -> Request:
    return Request(name, tuple(range(prompt)), Sampling(output), purpose=purpose, about="r")


def ledger(tokens: float, seconds: float, spent: Cost = Cost(0, 0.0)) -> Ledger:  # noqa: B008 - frozen
    return Ledger(
        Budget(tokens, seconds), spent, Rates(0.001, 0.01, NOT_SEEN), lambda asked: len(asked.prompt), in_cache
    )


def in_cache(asked: Request) -> int:
    """A probe's prompt but for its last token; an owner test's but for its last block of 16 tokens."""
    return {Purpose.PROBE: len(asked.prompt) - 1, Purpose.OWNER_TEST: len(asked.prompt) - 16}.get(asked.purpose, 0)


def phase(requests: Iterable[Request], name: str = "p", concurrency: int = 1) -> Phase:
    return Phase(name, tuple(requests), concurrency, counted=False)


def at(sent: float, ended: float, asked: Request) -> list[Entry]:
    """An answered request, in a phase that is named after its purpose."""
    choice = Choice(tuple(range(asked.sampling.max_tokens)))
    return [
        Sent(sent, asked, "s", str(asked.purpose), sent),
        Ended(ended, asked.request_id, Outcome.OK, status=200, choices=(choice,)),
    ]


def test_requests_are_paid_in_order_until_the_tokens_do_not_suffice() -> None:
    forcings = [request(f"f{n}", Purpose.FORCING, 99) for n in range(10)]
    (kept,) = ledger(1000, 1e9).afford([phase(forcings)], HALF)
    assert kept.requests == tuple(forcings[:5])


def test_a_control_and_a_retry_are_paid_with_their_forcings() -> None:
    for purpose in (Purpose.CONTROL, Purpose.RETRY):
        (kept,) = ledger(1000, 1e9).afford([phase(request(f"c{n}", purpose, 80, 20) for n in range(9))], EVERYTHING)
        assert len(kept.requests) == 5


def test_a_probe_costs_two_tokens_at_any_length_and_a_reset_nothing() -> None:
    probes = [request(f"p{n}", Purpose.PROBE, 10 * n + 10) for n in range(9)]
    (kept,) = ledger(10, 1e9).afford([phase(probes)], EVERYTHING)
    assert len(kept.requests) == 5
    assert ledger(0, 1e9).afford([phase([request("x", Purpose.RESET, 0)])], EVERYTHING)


def owner_tests(count: int) -> list[Request]:
    return [replace(request(f"o{n}", Purpose.OWNER_TEST, 100), owner=f"c{n}") for n in range(count)]


def after_owner_tests(share: float) -> Ledger:
    return replace(ledger(1000, 1e9), rates=Rates(0.001, 0.01, NOT_SEEN | {Purpose.OWNER_TEST: share}))


def test_a_few_owner_tests_are_sent_before_it_is_known_what_they_cost() -> None:
    (kept,) = ledger(1e9, 1e9).afford([phase(owner_tests(99))], EVERYTHING)
    assert len(kept.requests) == 24
    # The server that a question about blocks goes to has just used them.
    (blocks,) = ledger(1e9, 1e9).afford([phase(request(f"b{n}", Purpose.OWNER_TEST, 100) for n in range(20))], HALF)
    assert len(blocks.requests) == 20
    # Each is expected to compute a block of 16 tokens, and generates one.
    (kept,) = ledger(100, 1e9).afford([phase(owner_tests(20))], Mark(1.0, 1.0))
    assert len(kept.requests) == 5


def test_owner_tests_are_priced_by_the_share_of_cached_blocks_that_earlier_ones_computed() -> None:
    for share, price in ((0.0, 17), (0.5, 59), (1.0, 101)):
        (kept,) = after_owner_tests(share).afford([phase(owner_tests(2000))], Mark(1.0, 1.0))
        assert len(kept.requests) == 1000 // price


def test_probes_are_priced_by_what_earlier_ones_computed_and_questions_about_blocks_never() -> None:
    probes, blocks = ([request(f"p{n}", purpose, 100) for n in range(99)] for purpose in CACHED)
    seen = replace(ledger(1000, 1e9), rates=Rates(0.001, 0.01, dict.fromkeys(CACHED, 0.49)))
    assert [len(one.requests) for one in seen.afford([phase(probes)], Mark(1.0, 1.0))] == [1000 // 50]
    assert [len(one.requests) for one in seen.afford([phase(blocks)], Mark(1.0, 1.0))] == [1000 // 17]


def test_what_is_spent_is_no_longer_there() -> None:
    forcings = [request(f"f{n}", Purpose.FORCING, 99) for n in range(10)]
    (kept,) = ledger(1000, 100.0, Cost(300, 20.0)).afford([phase(forcings)], HALF)
    assert len(kept.requests) == 2
    assert not ledger(1000, 100.0, Cost(300, 50.0)).afford([phase(forcings)], HALF)
    assert not ledger(1000, 100.0, Cost(500, 20.0)).afford([phase(forcings)], HALF)


def test_a_phase_stops_sending_early_enough_for_the_requests_in_flight() -> None:
    # A forcing takes 0.1 s, so that four in flight need 0.4 s more.
    (kept,) = ledger(1e9, 20.0).afford(
        [phase((request(f"f{n}", Purpose.FORCING, 99) for n in range(900)), "p", 4)], HALF
    )
    assert kept.seconds is not None
    assert abs(kept.seconds - (10.0 - 0.4)) < 1e-9


def test_two_phases_of_a_step_share_the_time_by_what_they_need() -> None:
    three, one = ([request(f"{k}{n}", Purpose.FORCING, 99) for n in range(k)] for k in (300, 100))
    first, second = ledger(1e9, 20.0).afford([phase(three, "a"), phase(one, "b")], Mark(1.0, 1.0))
    assert [round(each.seconds or 0, 6) for each in (first, second)] == [15.0 - 0.1, 5.0 - 0.1]


def test_without_limits_phases_stay_as_they_are() -> None:
    phases = (phase([request("f", Purpose.FORCING, 99)]),)
    assert ledger(float("inf"), float("inf")).afford(phases, HALF) == phases


@given(
    prices=st.lists(st.integers(1, 500), max_size=60),
    tokens=st.integers(0, 20_000),
    spent=st.integers(0, 5000),
    part=st.floats(0, 1),
)
def test_no_step_spends_more_than_its_mark_and_none_stops_early(
    prices: list[int], tokens: int, spent: int, part: float
) -> None:
    asked = [request(f"f{n}", Purpose.FORCING, price) for n, price in enumerate(prices)]
    kept = ledger(tokens, 1e9, Cost(spent, 0.0)).afford([phase(asked)], Mark(part, 1.0))
    number = len(kept[0].requests) if kept else 0
    # Each forcing computes its prompt and one token.
    paid = spent + sum(price + 1 for price in prices[:number])
    assert number == 0 or paid <= tokens * part
    assert number == len(prices) or paid + prices[number] + 1 > tokens * part


def test_rates_come_from_the_load_and_then_from_requests_of_the_kind() -> None:
    load = at(0.0, 10.0, request("r", Purpose.LOAD, 900, 100))
    assert Rates.of(History(tuple(load))) == Rates(0.01, 0.64, NOT_SEEN)
    probes = [*at(20.0, 21.0, request("p", Purpose.PROBE, 50, 1)), *at(20.0, 22.0, request("q", Purpose.PROBE, 60, 1))]
    forcing = at(30.0, 33.0, request("f", Purpose.FORCING, 299, 1))
    assert Rates.of(History((*load, *probes, *forcing))) == Rates(
        0.01, 1.0, uncached={Purpose.PROBE: None, Purpose.OWNER_TEST: None}
    )


def test_time_counts_from_the_plan_so_that_waiting_counts_too() -> None:
    before = at(0.0, 1.0, request("salts", Purpose.SALT_TEST, 10, 1))
    load = at(2.0, 10.0, request("r", Purpose.LOAD, 900, 100))
    after = at(15.0, 16.0, request("f", Purpose.FORCING, 299, 1))
    history = History((*before, *load, VerificationPlanned(12.0, 1, 3.0), *after))
    assert load_cost(history) == Cost(1000, 8.0)
    assert verification_cost(history) == Cost(11 + 300, 1.0 + 4.0)
    assert verification_cost(history, now=20.0) == Cost(11 + 300, 1.0 + 8.0)


def test_an_owner_test_takes_at_least_as_long_as_a_probe() -> None:
    rates = Rates(0.001, 0.01)
    assert rates.seconds(request("o", Purpose.OWNER_TEST, 100), 2) == 0.01
    assert rates.seconds(request("o", Purpose.OWNER_TEST, 100), 101) == 0.101
    assert rates.seconds(request("f", Purpose.FORCING, 1), 2) == 0.002


def test_where_caches_have_lost_most_further_probes_are_priced_as_if_they_had_lost_everything() -> None:
    probe = request("probe", Purpose.PROBE, 1000)
    for seen, price in ((0.0, 1), (0.4, 401), (0.77, 1001)):
        rates = Rates(0.001, 0.01, NOT_SEEN | {Purpose.PROBE: seen})
        assert replace(ledger(1e9, 1e9), rates=rates).price(probe) == price
