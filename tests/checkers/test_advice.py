"""Every verdict that is not valid has a likely cause and what to do under it, drawn from structure, not from words."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from run_fixtures import DEPLOYMENT, STARTED

from harness.checkers import CHECKERS, judge
from harness.checkers.advice import advised
from harness.facts import Connector, Deployment, Role
from harness.history import Choice, Ended, Ending, Entry, History, Outcome, RunEnded, Sent
from harness.scenario import Request, Sampling
from harness.verdict import Bounds, Check, Comparison, Finding, FindingKind, Verdict

EMPTY = History((STARTED, RunEnded(1.0)))


def compared(server: str, counter: str, expected: int, observed: float | None, phase: str = "load") -> Comparison:
    return Comparison("random_load", phase, server, counter, Bounds.exactly(expected), observed)


def counters(name: str, *comparisons: Comparison, verdict: Verdict = Verdict.INVALID) -> Check:
    return Check(name, verdict, "a summary", comparisons)


def advice(check: Check, *others: Check, deployment: Deployment = DEPLOYMENT, history: History = EMPTY) -> str:
    return str(advised(deployment, history, (check, *others))[0].advice)


def failed(ending: Ending, status: int | None = None, server: str | None = None, number: int = 0) -> Iterator[Entry]:
    name = f"load-{number}"
    yield Sent(0.0, Request(name, (1, 2)), "load", "load", 0.0)
    yield Ended(1.0, name, Outcome.INFO, "words", status, ending=ending, decode_server=server)


def history(*entries: Entry) -> History:
    return History((STARTED, *entries, RunEnded(2.0)))


@pytest.mark.parametrize("name", [checker.__name__ for checker, _ in CHECKERS] + ["salts", "provoked", "another"])
@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.UNKNOWN])
def test_no_verdict_that_is_not_valid_stands_without_advice(name: str, verdict: Verdict) -> None:
    (check,) = advised(DEPLOYMENT, EMPTY, (Check(name, verdict, "a summary"),))
    assert check.advice is not None
    assert check.advice.cause
    assert check.advice.remedy
    assert not check.advice.cause.endswith(".")


def test_a_valid_check_has_none() -> None:
    assert advised(DEPLOYMENT, EMPTY, (Check("outputs", Verdict.VALID, "right"),))[0].advice is None


def test_a_whole_judgement_carries_it() -> None:
    judgement = judge(DEPLOYMENT, EMPTY)
    assert judgement.verdict is Verdict.UNKNOWN
    assert all((check.advice is None) == (check.verdict is Verdict.VALID) for check in judgement.checks)


def test_counters_that_mirror_each_other_are_swapped_urls() -> None:
    check = counters(
        "token_sources",
        compared("prefill-0", "local_compute", 100, 0),
        compared("decode-0", "local_compute", 0, 100),
        compared("prefill-0", "external_kv_transfer", 0, 100),
        compared("decode-0", "external_kv_transfer", 100, 0),
    )
    assert "URLs are swapped" in advice(check)
    nearly = replace(check, comparisons=(*check.comparisons[:3], compared("decode-0", "external_kv_transfer", 100, 1)))
    assert "swapped" not in advice(nearly)


def test_requests_that_never_came_are_counted() -> None:
    check = counters(
        "token_sources",
        compared("decode-0", "prompt_tokens", 100, 60),
        compared("prefill-0", "prompt_tokens", 100, 60),
        compared("prefill-0", "generation_tokens", 10, 6),
    )
    text = advice(check)
    assert "4 requests never reached" in text
    assert "servers that are not listed" in text
    assert "--decode-url" in text


def test_nothing_transferred_is_told_by_whether_decode_has_a_connector() -> None:
    check = counters(
        "token_sources",
        compared("decode-0", "external_kv_transfer", 100, 0),
        compared("decode-0", "local_compute", 0, 100),
    )
    assert "kv_transfer_params do not reach decode" in advice(check)
    servers = tuple(
        replace(server, connectors=() if server.role is Role.DECODE else (Connector.NIXL,))
        for server in DEPLOYMENT.servers
    )
    assert "decode-0 has no connector" in advice(check, deployment=replace(DEPLOYMENT, servers=servers))


def test_bytes_that_are_off_by_one_simple_ratio_are_another_models() -> None:
    check = counters("nixl_bytes", compared("decode-0", "nixl_bytes", 400, 600))
    assert "exactly 3/2" in advice(check)
    assert "--model" in advice(check)
    assert "exactly" not in advice(counters("nixl_bytes", compared("decode-0", "nixl_bytes", 400, 601)))
    also = (compared("decode-0", "nixl_bytes", 400, 600), compared("decode-0", "nixl_bytes", 400, 800, phase="again"))
    assert "exactly" not in advice(counters("nixl_bytes", *also))


def test_somebody_elses_requests_are_named_where_they_may_explain_it() -> None:
    theirs = replace(compared("decode-0", "prompt_tokens", 100, 110), explained=Bounds(100, 110), why_unknown="others")
    assert "other people's requests" in advice(counters("token_sources", theirs, verdict=Verdict.UNKNOWN))


def test_an_unknown_connector_is_named() -> None:
    servers = tuple(replace(server, unknown_connectors=("LMCacheConnectorV1",)) for server in DEPLOYMENT.servers)
    unread = replace(compared("decode-0", "local_compute", 0, 1), expected=None)
    text = advice(
        counters("token_sources", unread, verdict=Verdict.UNKNOWN), deployment=replace(DEPLOYMENT, servers=servers)
    )
    assert "does not know the connector LMCacheConnectorV1" in text


def test_the_commonest_way_in_which_requests_failed_is_what_is_told() -> None:
    check = Check("completion", Verdict.INVALID, "a summary")
    mixed = history(
        *failed(Ending.TIMED_OUT, number=0),
        *failed(Ending.REFUSED, 404, number=1),
        *failed(Ending.REFUSED, 404, number=2),
    )
    assert "the model under another name" in advice(check, history=mixed)
    assert "(2 requests)" in advice(check, history=mixed)
    assert "--request-timeout-sec" in advice(check, history=history(*failed(Ending.TIMED_OUT)))
    assert "--header" in advice(check, history=history(*failed(Ending.REFUSED, 401)))
    assert "nothing about the deployment" in advice(check, history=history(*failed(Ending.CLIENT_CRASHED)))


def test_one_server_of_several_that_all_failures_went_to_is_named() -> None:
    second = replace(DEPLOYMENT.servers[1], name="decode-1", url="http://127.0.0.1:8201")
    deployment = replace(DEPLOYMENT, servers=(*DEPLOYMENT.servers, second))
    entries = [entry for n in range(3) for entry in failed(Ending.REFUSED, 500, second.url, n)]
    text = advice(Check("completion", Verdict.INVALID, "s"), deployment=deployment, history=history(*entries))
    assert f"all of them on the decode server {second.url}" in text


def test_wrong_outputs_are_told_apart_by_what_was_found() -> None:
    def found(*kinds: FindingKind) -> Check:
        findings = tuple(
            Finding(f"load-{number}", "words", kind, request=f"load-{number}") for number, kind in enumerate(kinds)
        )
        return Check("outputs", Verdict.INVALID, "a summary", findings=findings)

    assert "another request's KV" in advice(found(FindingKind.WRONG_OUTPUT, FindingKind.LEAK))
    assert "into a cache under another block's hash" in advice(found(FindingKind.CACHE))
    assert "1 wrong output" in advice(found(FindingKind.WRONG_OUTPUT))
    broken = counters("failed_transfers", compared("decode-0", "nixl_failed_transfers", 0, 1))
    assert "kv_load_failure_policy" in advice(found(FindingKind.WRONG_OUTPUT), broken)


def test_answers_without_token_ids_are_a_gateways_doing() -> None:
    entries = (
        Sent(0.0, Request("load-0", (1, 2)), "load", "load", 0.0),
        Ended(1.0, "load-0", Outcome.OK, status=200, choices=(Choice((), "text", "stop"),)),
    )
    text = advice(Check("outputs", Verdict.UNKNOWN, "a summary"), history=history(*entries))
    assert "drops return_token_ids" in text


def test_a_checkers_own_failure_is_said_to_be_the_harnesss() -> None:
    def broken(_deployment: Deployment, _history: History) -> Check:
        raise ZeroDivisionError

    (check,) = judge(DEPLOYMENT, EMPTY, [(broken, None)]).checks
    assert check.verdict is Verdict.UNKNOWN
    assert "a fault of the harness" in str(check.advice)


def test_requests_that_decode_computed_by_itself_went_past_prefill() -> None:
    """Missing on prefill and computed on decode is no unlisted server."""
    check = counters(
        "token_sources",
        compared("prefill-0", "prompt_tokens", 100, 60),
        compared("prefill-0", "generation_tokens", 10, 6),
        compared("decode-0", "local_compute", 0, 40),
    )
    text = advice(check)
    assert "4 requests never reached prefill-0, and decode computed 40 itself" in text
    assert "not listed" not in text


def answered(*tokens: int, asked: int = 4, **fields: object) -> Iterator[Entry]:
    for number, count in enumerate(tokens):
        name = f"load-{number}"
        yield Sent(0.0, Request(name, (1, 2), Sampling(asked)), "load", "load", 0.0)
        choices = (Choice(tuple(range(count)), "text", "length"),)
        yield replace(Ended(1.0, name, Outcome.OK, status=200, choices=choices), **fields)


def test_requests_that_never_came_to_decode_are_counted_where_all_are_as_long() -> None:
    """Tokens that decode did not generate tell the number of requests if every request has as many."""
    check = counters(
        "token_sources",
        compared("decode-0", "prompt_tokens", 100, 60),
        compared("decode-0", "generation_tokens", 12, 4),
    )
    assert "40 prompt tokens, 2 requests never reached decode-0" in advice(check, history=history(*answered(4, 4, 4)))
    assert "40 prompt tokens never reached decode-0" in advice(check, history=history(*answered(4, 3, 4)))


def test_shortened_answers_and_other_prompts_are_no_matter_of_kv() -> None:
    """What a gateway did to the request is told as that."""

    def told(*entries: Entry) -> str:
        findings = tuple(
            Finding("answer", "words", FindingKind.WRONG_OUTPUT, request=f"load-{number}") for number in range(2)
        )
        return advice(Check("outputs", Verdict.INVALID, "s", findings=findings), history=history(*entries))

    assert "drops or lowers max_tokens" in told(*answered(2, 2))
    assert "max_tokens" not in told(*answered(4, 2))
    assert "rewrites prompts" in told(*answered(4, 4, prompt_token_ids=(1, 3)))
    assert "decode used KV that is not the prompt's" in told(*answered(4, 4, prompt_token_ids=(1, 2)))


def test_where_nothing_completed_no_buffer_is_blamed() -> None:
    """Streams that did not complete say nothing about buffering."""
    times = (0.1, 0.2, 0.3, 0.4, 0.5)
    late = replace(next(one for one in failed(Ending.CUT, 200) if isinstance(one, Ended)), token_times=times)
    sent = next(iter(failed(Ending.CUT, 200)))
    text = advice(Check("streaming", Verdict.UNKNOWN, "a summary"), history=history(sent, late))
    assert "no streamed answer completed" in text
    assert "buffers" not in text
