"""Requests or answers that were exchanged between clients and servers are reported as exchanged, not as wrong KV."""

import counted_run as run
import pytest

from harness.checkers.advice import advised
from harness.history import Choice, Entry, History, RunEnded, Usage
from harness.verdict import Check, Finding, FindingKind, Verdict
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.ownership import Leak, find_leaks

OTHER = run.PROMPTS[1]


def answered(reported: tuple[int, ...] | None) -> History:
    """Two requests. ``reported``: the prompt that the server reports for the first one."""
    entries: list[Entry] = []
    for number, prompt in enumerate((reported, OTHER)):
        usage = Usage(len(prompt or run.PROMPTS[number]), len(run.OUTPUT))
        choices = (Choice(run.OUTPUT, "", "length"),)
        entries += run.operation(run.request(number), prompt_token_ids=prompt, usage=usage, choices=choices)
    return History((*entries, RunEnded(9.0)))


def leaks(reported: tuple[int, ...] | None) -> tuple[Leak, ...]:
    return find_leaks(answered(reported), [Compared("r0", Match.MISMATCH, "it differs")], near=0.1)


def advice(name: str, verdict: Verdict, reported: tuple[int, ...] | None, *findings: Finding) -> str:
    return str(advised(run.DEPLOYMENT, answered(reported), (Check(name, verdict, "s", findings=findings),))[0].advice)


def test_the_reported_prompt_names_the_request_whose_answer_was_delivered() -> None:
    """The reported prompt names the owner, and the finding does not mention KV."""
    (leak,) = leaks(OTHER)
    assert leak.owner == "r1"
    assert "was given r1's answer" in leak.text
    assert "KV" not in leak.text


@pytest.mark.parametrize(
    "reported", [None, run.PROMPTS[0], run.PROMPTS[0][5:], run.PROMPTS[0][:5], (1, *run.PROMPTS[0]), ()]
)
def test_a_reported_prompt_of_no_other_request_names_no_owner(reported: tuple[int, ...] | None) -> None:
    """A prompt that was shortened or extended on the way belongs to no other request."""
    assert leaks(reported) == ()


def test_the_advice_on_exchanged_answers_does_not_name_leases() -> None:
    """The advice names something between clients and servers; for a real leak, it names KV leases."""
    leak = Finding("r0", "words", FindingKind.LEAK, request="r0")
    assert "returns one request's answer to another" in advice("outputs", Verdict.INVALID, OTHER, leak)
    assert "kv_lease_duration" in advice("outputs", Verdict.INVALID, run.PROMPTS[0], leak)


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.UNKNOWN])
def test_the_advice_names_rewritten_prompts(verdict: Verdict) -> None:
    """The advice names the rewritten prompt if usage counts another number of prompt tokens than was sent."""
    assert "1 prompt reached the servers with another number" in advice("token_sources", verdict, (1, *run.PROMPTS[0]))
    assert "another number" not in advice("token_sources", verdict, run.PROMPTS[0])
