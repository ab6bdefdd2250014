"""What requests cost, counted by hand: with and without reports of cached tokens."""

import pytest

from harness.history import Choice, Ended, Entry, History, Outcome, Sent, Usage
from harness.scenario import Purpose, Request, Route
from harness.verify.judging.cost import computed, share_computed, verification_cost

SILENT = -1
"""Usage without a number of cached tokens: they are not reported, or there are none."""


def asked(
    name: str,
    purpose: Purpose,
    cached: int | None,
    *,
    prompt: int = 100,
    route: Route = Route.PREFILL,
    owner: str | None = "candidate",
    outcome: Outcome = Outcome.OK,
) -> list[Entry]:
    """A request with three tokens as its answer; ``cached``: None if the answer has no usage at all."""
    request = Request(name, tuple(range(prompt)), route=route, purpose=purpose, about="r", owner=owner)
    usage = None if cached is None else Usage(prompt, 3, None if cached == SILENT else cached)
    return [
        Sent(1.0, request, "verification", "p", 1.0),
        Ended(2.0, name, outcome, status=200, choices=(Choice((1, 2, 3)),), usage=usage),
    ]


def history(*requests: list[Entry]) -> History:
    return History(tuple(entry for one in requests for entry in one))


@pytest.mark.parametrize(
    ("purpose", "cached", "silent", "reported"),
    [
        # Forcings and controls have salts of their own: nothing is cached.
        *((purpose, 64, 103, 103) for purpose in (Purpose.FORCING, Purpose.CONTROL, Purpose.RETRY, Purpose.LOAD)),
        (Purpose.PROBE, 64, 39, 39),
        (Purpose.PROBE, 100, 4, 4),
        (Purpose.PROBE, 0, 103, 103),
        (Purpose.PROBE, SILENT, 4, 103),
        (Purpose.PROBE, None, 4, 4),
        (Purpose.OWNER_TEST, 64, 39, 39),
        # Six whole blocks of 16 are taken to be cached.
        (Purpose.OWNER_TEST, SILENT, 7, 103),
        (Purpose.OWNER_TEST, None, 7, 7),
    ],
)
def test_a_request_computes_what_its_cache_does_not_have(
    purpose: Purpose, cached: int | None, silent: int, reported: int
) -> None:
    (one,) = history(asked("x", purpose, cached)).operations()
    assert (computed(one), computed(one, reported=True)) == (silent, reported)


def test_an_owner_test_of_a_short_prompt_computes_no_more_than_the_prompt() -> None:
    (one,) = history(asked("x", Purpose.OWNER_TEST, SILENT, prompt=10)).operations()
    assert computed(one) == 13


def test_if_any_server_reports_cached_tokens_the_silent_answers_had_none() -> None:
    silent, tells = asked("a", Purpose.PROBE, SILENT), asked("b", Purpose.PROBE, 96)
    assert verification_cost(history(silent)).tokens == 4
    assert verification_cost(history(silent, tells)).tokens == 103 + 7
    # Through a proxy, the usage may be that of either server.
    proxied = asked("c", Purpose.RETRY, 96, route=Route.PROXY)
    assert verification_cost(history(silent, proxied)).tokens == 4 + 103


def test_the_share_that_was_computed_is_known_once_a_server_reports_cached_tokens() -> None:
    assert share_computed(history(), Purpose.PROBE) is None
    assert share_computed(history(asked("a", Purpose.PROBE, SILENT)), Purpose.PROBE) is None
    assert share_computed(history(asked("a", Purpose.PROBE, 80)), Purpose.OWNER_TEST) is None
    probes = history(asked("a", Purpose.PROBE, 80), asked("b", Purpose.PROBE, SILENT, prompt=300))
    assert share_computed(probes, Purpose.PROBE) == (20 + 300) / 400
    # Of 96 and of 288 tokens in whole blocks, the first test computed 16 and the second all.
    tests = history(asked("a", Purpose.OWNER_TEST, 80), asked("b", Purpose.OWNER_TEST, SILENT, prompt=300))
    assert share_computed(tests, Purpose.OWNER_TEST) == (16 + 288) / (96 + 288)


def test_owner_tests_are_taken_to_hit_if_no_server_reports_what_is_cached() -> None:
    """Otherwise their price would never be known, and a few at a time would be sent for ever."""
    assert share_computed(history(asked("a", Purpose.OWNER_TEST, SILENT)), Purpose.OWNER_TEST) == 0.0


def test_of_a_short_owners_prompt_only_its_own_whole_blocks_can_be_cached() -> None:
    owner = [
        Sent(0.0, Request("candidate", tuple(range(40))), "load", "load", 0.0),
        Ended(0.5, "candidate", Outcome.OK, status=200),
    ]
    test = history(owner, asked("a", Purpose.OWNER_TEST, SILENT))
    # Two blocks of 16 are cached; 68 tokens of the prompt are not, and the answer has three.
    assert verification_cost(test).tokens == 71
    assert share_computed(history(owner, asked("a", Purpose.OWNER_TEST, 32)), Purpose.OWNER_TEST) == 0.0


def test_the_share_counts_neither_failures_nor_questions_about_blocks() -> None:
    failed = asked("a", Purpose.OWNER_TEST, 0, outcome=Outcome.FAIL)
    blocks = asked("b", Purpose.OWNER_TEST, 0, owner=None)
    assert share_computed(history(failed, blocks), Purpose.OWNER_TEST) is None
    assert share_computed(history(failed, blocks, asked("c", Purpose.OWNER_TEST, 72)), Purpose.OWNER_TEST) == 0.25
