"""Every check that is not valid has advice, derived from structured evidence and not from texts."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from run_fixtures import DEPLOYMENT, STARTED

from harness.checkers import CHECKERS, judge
from harness.checkers.advice import advised
from harness.facts import Connector, Deployment
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
def test_every_check_that_is_not_valid_has_advice(name: str, verdict: Verdict) -> None:
    (check,) = advised(DEPLOYMENT, EMPTY, (Check(name, verdict, "a summary"),))
    assert check.advice is not None
    assert check.advice.cause
    assert check.advice.remedy
    assert not check.advice.cause.endswith(".")


def test_a_valid_check_has_no_advice() -> None:
    assert advised(DEPLOYMENT, EMPTY, (Check("outputs", Verdict.VALID, "right"),))[0].advice is None


def test_a_judgement_has_advice() -> None:
    judgement = judge(DEPLOYMENT, EMPTY)
    assert judgement.verdict is Verdict.UNKNOWN
    assert all((check.advice is None) == (check.verdict is Verdict.VALID) for check in judgement.checks)


def test_counters_that_mirror_each_other_mean_swapped_urls() -> None:
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


def test_missing_requests_are_counted() -> None:
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


def test_advice_on_missing_transfers_depends_on_decodes_connector() -> None:
    check = counters(
        "token_sources",
        compared("decode-0", "external_kv_transfer", 100, 0),
        compared("decode-0", "local_compute", 0, 100),
    )
    assert "kv_transfer_params do not reach decode" in advice(check)
    prefill, decode = DEPLOYMENT.servers
    servers = (replace(prefill, connectors=(Connector.NIXL,)), replace(decode, connectors=()))
    assert "decode-0 has no connector" in advice(check, deployment=replace(DEPLOYMENT, servers=servers))


def test_bytes_wrong_by_one_simple_ratio_mean_another_model() -> None:
    check = counters("nixl_bytes", compared("decode-0", "nixl_bytes", 400, 600))
    assert "exactly 3/2" in advice(check)
    assert "--model" in advice(check)
    assert "exactly" not in advice(counters("nixl_bytes", compared("decode-0", "nixl_bytes", 400, 601)))
    also = (compared("decode-0", "nixl_bytes", 400, 600), compared("decode-0", "nixl_bytes", 400, 800, phase="again"))
    assert "exactly" not in advice(counters("nixl_bytes", *also))


def test_other_peoples_requests_are_named_if_they_may_explain_the_counters() -> None:
    theirs = replace(compared("decode-0", "prompt_tokens", 100, 110), explained=Bounds(100, 110), why_unknown="others")
    assert "other people's requests" in advice(counters("token_sources", theirs, verdict=Verdict.UNKNOWN))


def test_a_counter_that_was_not_read_is_explained_by_nobody() -> None:
    """The check of failed transfers says what others may have caused before it knows whether there is a reading."""
    unread = replace(compared("decode-0", "nixl_failed_transfers", 0, None), explained=Bounds(1, 9))
    killed = History((STARTED,))
    assert killed.ended_early
    told = advice(counters("failed_transfers", unread, verdict=Verdict.UNKNOWN), history=killed)
    assert "the run ended early" in told


def test_an_unknown_connector_is_named() -> None:
    unread = replace(compared("decode-0", "local_compute", 0, 1), expected=None)
    check = counters("token_sources", unread, verdict=Verdict.UNKNOWN)
    text = advice(check, deployment=DEPLOYMENT.with_servers(unknown_connectors=("LMCacheConnectorV1",)))
    assert "does not know the connector LMCacheConnectorV1" in text


def test_advice_is_about_the_most_common_failure() -> None:
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


def test_the_server_of_all_failures_is_named() -> None:
    second = replace(DEPLOYMENT.servers[1], name="decode-1", url="http://127.0.0.1:8201")
    deployment = replace(DEPLOYMENT, servers=(*DEPLOYMENT.servers, second))
    entries = [entry for n in range(3) for entry in failed(Ending.REFUSED, 500, second.url, n)]
    text = advice(Check("completion", Verdict.INVALID, "s"), deployment=deployment, history=history(*entries))
    assert f"all of them on the decode server {second.url}" in text


def test_advice_on_wrong_outputs_depends_on_the_findings() -> None:
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


def test_answers_without_token_ids_point_to_a_gateway() -> None:
    entries = (
        Sent(0.0, Request("load-0", (1, 2)), "load", "load", 0.0),
        Ended(1.0, "load-0", Outcome.OK, status=200, choices=(Choice((), "text", "stop"),)),
    )
    text = advice(Check("outputs", Verdict.UNKNOWN, "a summary"), history=history(*entries))
    assert "drops return_token_ids" in text


def test_a_failed_checker_is_called_a_fault_of_the_harness() -> None:
    def broken(_deployment: Deployment, _history: History) -> Check:
        raise ZeroDivisionError

    (check,) = judge(DEPLOYMENT, EMPTY, [(broken, None)]).checks
    assert check.verdict is Verdict.UNKNOWN
    assert "a fault of the harness" in str(check.advice)


def test_prompts_that_decode_computed_itself_bypassed_prefill() -> None:
    """Prompt tokens missing on prefill and computed on decode did not go to an unlisted server."""
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


def test_requests_missing_on_decode_are_counted_if_all_have_one_length() -> None:
    """If every request asks for the same number of tokens, missing generated tokens give the number of requests."""
    check = counters(
        "token_sources",
        compared("decode-0", "prompt_tokens", 100, 60),
        compared("decode-0", "generation_tokens", 12, 4),
    )
    assert "40 prompt tokens, 2 requests never reached decode-0" in advice(check, history=history(*answered(4, 4, 4)))
    assert "40 prompt tokens never reached decode-0" in advice(check, history=history(*answered(4, 3, 4)))


def test_changed_requests_are_not_blamed_on_kv() -> None:
    """A gateway shortened the answers or rewrote the prompts."""

    def advice_on(*entries: Entry) -> str:
        findings = tuple(
            Finding("answer", "words", FindingKind.WRONG_OUTPUT, request=f"load-{number}") for number in range(2)
        )
        return advice(Check("outputs", Verdict.INVALID, "s", findings=findings), history=history(*entries))

    assert "drops or lowers max_tokens" in advice_on(*answered(2, 2))
    assert "max_tokens" not in advice_on(*answered(4, 2))
    assert "rewrites prompts" in advice_on(*answered(4, 4, prompt_token_ids=(1, 3)))
    assert "decode used KV that is not the prompt's" in advice_on(*answered(4, 4, prompt_token_ids=(1, 2)))


def test_no_buffer_is_blamed_if_nothing_completed() -> None:
    """Streams that did not complete show nothing about buffering."""
    times = (0.1, 0.2, 0.3, 0.4, 0.5)
    late = replace(next(one for one in failed(Ending.CUT, 200) if isinstance(one, Ended)), token_times=times)
    sent = next(iter(failed(Ending.CUT, 200)))
    text = advice(Check("streaming", Verdict.UNKNOWN, "a summary"), history=history(sent, late))
    assert "no streamed answer completed" in text
    assert "buffers" not in text
