"""Low counts of the listed servers are unknown if the proxy may use other servers."""

from dataclasses import replace

import counted_run as run
import pytest

from harness.checkers import judge
from harness.history import History
from harness.verdict import Judgement, Verdict

ATTACHED = replace(run.DEPLOYMENT, launched=False, own_proxy=False)
FIRST, SECOND = len(run.PROMPTS[0]), len(run.PROMPTS[1])
ONE_BLOCK = run.BLOCK
HALF_DECODE = run.ZERO | {
    "prompt": FIRST,
    "external": FIRST,
    "generated": 5,
    "prefix_queries": FIRST,
    "external_queries": FIRST,
    "external_hits": FIRST,
    "nixl": 2 * ONE_BLOCK,
    "reads": 1,
    "store": ONE_BLOCK,
    "store_legacy": ONE_BLOCK,
}
"""Decode's counters if the second request went to another decode server."""


def served(prefill: str | None = None, decode: str | None = None, **counted: float) -> History:
    """Decode did not count the second request; both answers name these servers."""
    operations = [
        entry for n in (0, 1) for entry in run.operation(run.request(n), prefill_server=prefill, decode_server=decode)
    ]
    return run.history(run.readings(decode=HALF_DECODE | counted), operations)


def verdicts(judgement: Judgement) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in judgement.checks if check.verdict is not Verdict.VALID}


def test_low_counts_are_unknown_if_the_proxy_names_no_server() -> None:
    judgement = judge(ATTACHED, served())
    assert set(verdicts(judgement).values()) == {Verdict.UNKNOWN}
    assert {"token_sources", "nixl_bytes"} <= set(verdicts(judgement))
    (sources,) = [check for check in judgement.checks if check.name == "token_sources"]
    assert f"{SECOND} prompt tokens of answered requests reached no listed decode server" in sources.summary
    assert "servers that are not listed" in str(sources.advice)
    assert "--decode-url" in str(sources.advice)


def test_low_counts_are_unknown_if_the_proxy_names_another_server() -> None:
    assert Verdict.INVALID not in verdicts(judge(ATTACHED, served("http://p", "http://elsewhere:8200"))).values()


def test_low_counts_are_invalid_if_all_answers_name_listed_servers() -> None:
    found = verdicts(judge(ATTACHED, served("http://p", "http://d")))
    assert found["token_sources"] is Verdict.INVALID


def test_a_launched_deployment_has_no_other_servers() -> None:
    assert verdicts(judge(run.DEPLOYMENT, served()))["token_sources"] is Verdict.INVALID


@pytest.mark.parametrize("counted", [{"compute": FIRST, "external": 0}, {"compute": 1, "external": FIRST - 1}])
def test_tokens_that_decode_computed_itself_are_invalid_behind_any_proxy(counted: dict[str, float]) -> None:
    assert verdicts(judge(ATTACHED, served(**counted)))["token_sources"] is Verdict.INVALID


def test_a_clean_run_behind_such_a_proxy_is_valid() -> None:
    assert verdicts(judge(ATTACHED, run.history())) == {}
