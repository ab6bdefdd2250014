"""The cost of verification, with numbers calculated by hand."""

from harness.history import Choice, Ended, Entry, History, Outcome, Sent
from harness.reports.verification_cost import VerificationCost, verification_cost
from harness.scenario import Purpose, Request, Sampling


def asked(name: str, phase: str, at: float, prompt: int, output: int, **fields: object) -> list[Entry]:
    request = Request(name, tuple(range(prompt)), Sampling(), **fields)  # type: ignore[arg-type]  # the tests name them
    choice = Choice(tuple(range(output)))
    return [
        Sent(at, request, "load", phase, at),
        Ended(at + 2, name, Outcome.OK, status=200, choices=(choice,), prompt_token_ids=request.prompt),
    ]


def test_a_probe_computes_one_token_of_its_prompt_and_phases_are_timed_from_first_to_last() -> None:
    history = History(
        (
            *asked("a", "load", 0.0, 100, 20),
            *asked("b", "load", 1.0, 50, 20),
            *asked("a-probe", "probe", 10.0, 65, 1, purpose=Purpose.PROBE, about="a"),
            *asked("a-control", "control", 20.0, 100, 20, purpose=Purpose.CONTROL, about="a"),
            *asked("a-teacher", "teacher", 30.0, 120, 1, purpose=Purpose.FORCING, about="a"),
            *asked("b-teacher", "teacher", 31.0, 70, 1, purpose=Purpose.FORCING, about="b"),
        )
    )
    cost = verification_cost(history)
    assert cost == VerificationCost(load_tokens=190, load_seconds=3.0, tokens=2 + 120 + 121 + 71, seconds=7.0)
    assert "314 tokens (165% of the load's 190) in 7.0 s; the load took 3.0 s" in cost.text


def test_a_run_without_verification_has_no_line() -> None:
    assert verification_cost(History(tuple(asked("a", "load", 0.0, 10, 2)))).text == ""
    assert verification_cost(History(())).text == ""
