"""A wrong output compared with what a candidate's prompt is answered with."""

import numpy as np
import pytest

from harness.history import Choice, Ended, Operation, Outcome, Sent, TokenLogprob
from harness.scenario import Purpose, Request, Sampling
from harness.verify.judging.continuations import as_forced, is_continuation, rules_out

NEAR = 0.1


def continued(*rows: TokenLogprob, outcome: Outcome = Outcome.OK) -> Operation:
    request = Request("c", (1, 2), Sampling(max_tokens=3), purpose=Purpose.OWNER_TEST, about="w", owner="o")
    choice = Choice(tuple(row.token_id for row in rows), logprobs=rows)
    return Operation(Sent(0.0, request, "s", "p", 0.0), Ended(1.0, "c", outcome, choices=(choice,)))


def row(token: int, *, second: float = -3.0, third: float = -5.0) -> TokenLogprob:
    """Served with -1 nats; tokens 90 and 91 are next."""
    return TokenLogprob(token, -1.0, second, 90, third, 91)


def test_an_equal_answer_shows_what_forcing_would_show() -> None:
    found = as_forced((5, 6, 7), continued(row(5), row(6), row(7)))
    assert found is not None
    assert np.array_equal(found.logprob, [-1.0] * 3)
    assert np.array_equal(found.regret, [0.0] * 3)
    assert not rules_out((5, 6, 7), continued(row(5), row(6), row(7)), NEAR)


def test_a_server_that_serves_another_token_than_the_best_shows_regret() -> None:
    found = as_forced((5,), continued(row(5, second=-0.5)))
    assert found is not None
    assert found.regret[0] == 0.5


@pytest.mark.parametrize("answer", [(5, 6, 8), (8, 6, 7), (5, 6, 7, 8), ()])
def test_an_answer_that_parts_or_is_longer_is_not_known_to_the_end(answer: tuple[int, ...]) -> None:
    assert as_forced(answer, continued(row(5), row(6), row(7))) is None


def test_a_token_far_behind_the_best_rules_a_prompt_out() -> None:
    assert rules_out((5, 90, 7), continued(row(5), row(6), row(7)), NEAR)
    # A near tie may go the other way on the decode server.
    assert not rules_out((5, 90, 7), continued(row(5), row(6, second=-1.05), row(7)), NEAR)


def test_a_token_that_is_not_named_is_behind_all_that_are() -> None:
    assert rules_out((5, 8, 7), continued(row(5), row(6), row(7)), NEAR)
    assert not rules_out((5, 8, 7), continued(row(5), row(6, second=-1.01, third=-1.05), row(7)), NEAR)


def test_a_request_that_failed_or_reports_no_log_probabilities_shows_nothing() -> None:
    failed, silent = continued(row(5), outcome=Outcome.FAIL), continued(TokenLogprob(5, float("nan")))
    for one in (failed, silent):
        assert as_forced((5,), one) is None
        assert not rules_out((8,), one, NEAR)


def test_only_owner_tests_of_several_tokens_are_continuations() -> None:
    test = Request("t", (1,), Sampling(max_tokens=1), purpose=Purpose.OWNER_TEST, about="w", owner="o")
    question = Request("q", (1,), Sampling(max_tokens=16), purpose=Purpose.OWNER_TEST, about="w")
    assert is_continuation(continued(row(5)).request)
    assert not is_continuation(test)
    assert not is_continuation(question)
