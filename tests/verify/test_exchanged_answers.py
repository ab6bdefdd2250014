"""What happened to a request or its answer on the way is told as that, and not as a matter of KV."""

import counted_run as run
import pytest

from harness.checkers.advice import advised
from harness.history import Choice, Entry, History, RunEnded, Usage
from harness.verdict import Check, Finding, FindingKind, Verdict
from harness.verify.judging.compared import Compared, Match
from harness.verify.judging.ownership import Leak, find_leaks

OTHER = run.PROMPTS[1]


def answered(told: tuple[int, ...] | None) -> History:
    """Two requests; the first one's server tells this prompt."""
    entries: list[Entry] = []
    for number, prompt in enumerate((told, OTHER)):
        usage = Usage(len(prompt or run.PROMPTS[number]), len(run.OUTPUT))
        choices = (Choice(run.OUTPUT, "", "length"),)
        entries += run.operation(run.request(number), prompt_token_ids=prompt, usage=usage, choices=choices)
    return History((*entries, RunEnded(9.0)))


def leaks(told: tuple[int, ...] | None) -> tuple[Leak, ...]:
    return find_leaks(answered(told), [Compared("r0", Match.MISMATCH, "it differs")], near=0.1)


def advice(name: str, verdict: Verdict, told: tuple[int, ...] | None, *findings: Finding) -> str:
    return str(advised(run.DEPLOYMENT, answered(told), (Check(name, verdict, "s", findings=findings),))[0].advice)


def test_an_answer_to_another_requests_prompt_is_that_requests() -> None:
    """The server's own word for the prompt names the owner, and nobody's KV is blamed."""
    (leak,) = leaks(OTHER)
    assert leak.owner == "r1"
    assert "was given r1's answer" in leak.text
    assert "KV" not in leak.text


@pytest.mark.parametrize(
    "told", [None, run.PROMPTS[0], run.PROMPTS[0][5:], run.PROMPTS[0][:5], (1, *run.PROMPTS[0]), ()]
)
def test_a_prompt_that_is_nobodys_names_nobody(told: tuple[int, ...] | None) -> None:
    """One that was cut or grew on the way belongs to no other request."""
    assert leaks(told) == ()


def test_exchanged_answers_are_no_matter_of_leases() -> None:
    """The advice is about what stands between, and of a real leak about KV."""
    leak = Finding("r0", "words", FindingKind.LEAK, request="r0")
    assert "returns one request's answer to another" in advice("outputs", Verdict.INVALID, OTHER, leak)
    assert "kv_lease_duration" in advice("outputs", Verdict.INVALID, run.PROMPTS[0], leak)


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.UNKNOWN])
def test_rewritten_prompts_are_no_unlisted_server_and_no_other_client(verdict: Verdict) -> None:
    """Where usage counts another prompt than was sent, that is the cause."""
    assert "1 prompt reached the servers with another number" in advice("token_sources", verdict, (1, *run.PROMPTS[0]))
    assert "another number" not in advice("token_sources", verdict, run.PROMPTS[0])
