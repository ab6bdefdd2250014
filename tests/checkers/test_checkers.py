"""Each checker finds a planted fault, passes a clean run, and is unknown without evidence."""

from dataclasses import replace
from typing import Any

import counted_run as run
import pytest

from harness.checkers import CHECKERS, judge
from harness.checkers.client_health import client_health
from harness.checkers.completion import completion
from harness.checkers.failed_transfers import failed_transfers
from harness.checkers.nixl_bytes import nixl_bytes
from harness.checkers.offload_bytes import offload_bytes
from harness.checkers.settled import settled
from harness.checkers.token_sources import token_sources
from harness.facts import Connector, Deployment
from harness.history import Choice, ClientHealth, Ending, History, Outcome, RunEnded, ScrapeFailed, Usage
from harness.verdict import Outputs, Verdict
from harness.verify.judging import outputs

COUNTING = [token_sources, nixl_bytes, offload_bytes, failed_transfers]
RECOMPUTED = run.DECODE | {"external": 0, "external_hits": 0, "compute": 228, "nixl": 0, "reads": 0}


def seen(decode: dict[str, float] | None = None, prefill: dict[str, float] | None = None) -> History:
    """The clean run, with these counters changed at its end."""
    return run.history(run.readings(run.PREFILL | (prefill or {}), run.DECODE | (decode or {})))


def test_a_clean_run_is_valid_by_every_checker() -> None:
    judgement = judge(run.DEPLOYMENT, run.history())
    assert {check.name: (check.verdict, check.summary) for check in judgement.checks if check.verdict != "valid"} == {}
    assert len(judgement.checks) == len(CHECKERS)
    assert judgement.verdict is Verdict.VALID
    assert judgement.outputs == Outputs(requests=2, exact=2, tie=0, mismatch=0, unverified=0)


def test_the_summary_of_a_clean_run_has_the_transferred_tokens() -> None:
    check = token_sources(run.DEPLOYMENT, run.history())
    assert check.summary == "decode received 228 of 228 prompt tokens by KV transfer"
    assert nixl_bytes(run.DEPLOYMENT, run.history()).summary == "NIXL moved 256,000 bytes in 2 reads, as predicted"


def test_a_decode_server_that_computed_all_prompts_is_found() -> None:
    idle = run.readings(run.ZERO, RECOMPUTED)
    check = token_sources(run.DEPLOYMENT, run.history(idle))
    assert check.verdict is Verdict.INVALID
    assert check.summary == (
        "decode computed every prompt token itself: nothing was transferred (expected 228 by KV transfer)"
    )


def test_a_recomputed_part_is_found() -> None:
    check = token_sources(run.DEPLOYMENT, seen({"external": 128, "compute": 100}))
    assert check.verdict is Verdict.INVALID
    assert check.summary.startswith(
        "decode received 128 of 228 prompt tokens by KV transfer; external_kv_transfer of decode-0"
    )


@pytest.mark.parametrize(
    "counter", ["compute", "hit", "external", "prompt", "generated", "prefix_hits", "external_hits"]
)
@pytest.mark.parametrize("server", ["prefill", "decode"])
def test_one_token_more_anywhere_is_invalid(server: str, counter: str) -> None:
    clean = run.PREFILL if server == "prefill" else run.DECODE
    check = token_sources(run.DEPLOYMENT, seen(**{server: {counter: clean[counter] + 1}}))
    assert check.verdict is Verdict.INVALID


def test_usage_that_differs_from_the_servers_count_is_invalid() -> None:
    odd = (*run.operation(run.request(0), usage=Usage(101, 5)), *run.operation(run.request(1)))
    check = token_sources(run.DEPLOYMENT, run.history(operations=odd))
    assert check.verdict is Verdict.INVALID
    assert "usage" in check.summary


def test_usage_that_is_missing_is_unknown() -> None:
    silent = (*run.operation(run.request(0), usage=None), *run.operation(run.request(1)))
    check = token_sources(run.DEPLOYMENT, run.history(operations=silent))
    assert check.verdict is Verdict.UNKNOWN
    assert "answers without usage: 1" in check.summary


@pytest.mark.parametrize("nixl", [0, 3 * run.BLOCK, 4 * run.BLOCK + 1, 5 * run.BLOCK])
def test_nixl_bytes_too_few_or_too_many_are_invalid(nixl: int) -> None:
    check = nixl_bytes(run.DEPLOYMENT, seen({"nixl": nixl}))
    assert check.verdict is Verdict.INVALID
    assert "expected 256,000" in check.summary


def test_a_read_that_is_missing_is_invalid() -> None:
    assert nixl_bytes(run.DEPLOYMENT, seen({"reads": 1})).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"store": 2 * run.BLOCK, "store_legacy": 2 * run.BLOCK},
        {"store": 4 * run.BLOCK, "store_legacy": 4 * run.BLOCK},
        {"load": run.BLOCK, "load_legacy": run.BLOCK},
        {"store_legacy": 2 * run.BLOCK},
    ],
)
@pytest.mark.parametrize("server", ["prefill", "decode"])
def test_wrong_offloaded_bytes_are_invalid(server: str, change: dict[str, float]) -> None:
    assert offload_bytes(run.DEPLOYMENT, seen(**{server: change})).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("stored", "refused", "verdict"),
    [
        (3, 0, Verdict.VALID), (2, 0, Verdict.INVALID), (2, 1, Verdict.VALID), (1, 1, Verdict.VALID),
        (1, 2, Verdict.VALID), (0, 1, Verdict.INVALID), (0, 2, Verdict.VALID), (4, 2, Verdict.INVALID),
    ],
)  # fmt: skip
@pytest.mark.parametrize("server", ["prefill", "decode"])
def test_each_refused_store_of_the_tier_excuses_one_request(
    server: str, stored: int, refused: int, verdict: Verdict
) -> None:
    # Each server stores 1 + 2 chunks of 64 tokens: the longer prompt has two.
    changed = {"store": stored * run.BLOCK, "store_legacy": stored * run.BLOCK, "refused": refused}
    assert offload_bytes(run.DEPLOYMENT, seen(**{server: changed})).verdict is verdict


def test_a_comparison_excused_by_a_refused_store_has_a_reason() -> None:
    check = offload_bytes(run.DEPLOYMENT, seen({"store": run.BLOCK, "store_legacy": run.BLOCK, "refused": 1}))
    assert "refused 1 stores" in next(one.why_unknown for one in check.comparisons if one.why_unknown)


def test_each_preemption_excuses_loading_one_prompt() -> None:
    # The longer prompt has 128 tokens.
    whole = 2 * run.BLOCK
    for times, verdict in ((1, Verdict.VALID), (2, Verdict.INVALID)):
        loaded = {"load": times * whole, "load_legacy": times * whole, "preemptions": 1}
        assert offload_bytes(run.DEPLOYMENT, seen(decode=loaded)).verdict is verdict
    assert offload_bytes(run.DEPLOYMENT, seen(decode={"load": whole, "load_legacy": whole})).verdict is Verdict.INVALID


@pytest.mark.parametrize(("server", "counter"), [("decode", "failed"), ("prefill", "expired"), ("prefill", "late")])
def test_a_transfer_that_failed_or_expired_is_invalid(server: str, counter: str) -> None:
    assert failed_transfers(run.DEPLOYMENT, seen(**{server: {counter: 1}})).verdict is Verdict.INVALID


def test_requests_that_expired_before_the_run_excuse_no_late_notification() -> None:
    expired = {"expired": 8, "late": 1}
    started = [run.reading("prefill-0", "before", run.ZERO | expired), run.readings()[1]]
    for late, verdict in ((1, Verdict.VALID), (2, Verdict.INVALID)):
        ended = run.reading("prefill-0", "after", run.PREFILL | expired | {"late": late})
        history = run.history([*started, ended, run.readings()[3]])
        assert failed_transfers(run.DEPLOYMENT, history).verdict is verdict


def test_late_notifications_count_for_the_phase_in_which_the_requests_expired() -> None:
    # Eight requests expire in the load, and one late notification is counted there; P counts seven in the next phase.
    expired = run.PREFILL | {"expired": 8, "late": 1}
    for late, verdict in ((8, Verdict.VALID), (9, Verdict.INVALID)):
        later = [
            replace(run.reading(server, label, values), phase="later")
            for label, values_of in (("before", expired), ("after", expired | {"late": late}))
            for server, values in (("prefill-0", values_of), ("decode-0", run.DECODE))
        ]
        check = failed_transfers(run.DEPLOYMENT, run.history([*run.readings(expired), *later]))
        of_p = [one for one in check.comparisons if one.server == "prefill-0"]
        by_phase = {one.phase: one.verdict for one in of_p if one.counter == "nixl_after_expiry"}
        assert check.verdict is Verdict.INVALID
        assert by_phase["later"] is verdict


def test_an_engine_without_a_counter_of_late_notifications_is_judged_by_the_others() -> None:
    older = [
        run.reading(server, label, {k: v for k, v in values.items() if k != "late"})
        for label, values_of in (("before", {}), ("after", {"prefill-0": run.PREFILL, "decode-0": run.DECODE}))
        for server in ("prefill-0", "decode-0")
        for values in [values_of.get(server, run.ZERO)]
    ]
    assert failed_transfers(run.DEPLOYMENT, run.history(older)).verdict is Verdict.VALID


WITHOUT_AFTER = run.history(run.readings()[:2])
FAILED = run.history(
    [*run.readings()[:3], ScrapeFailed(0.0, "decode-0", "after", "cold", "load", "connection refused")]
)
UNSETTLED = run.history(
    [replace(one, settled=False, unsettled_because="2 requests are still running") for one in run.readings()]
)
RESTARTED = seen({"started": 1.8e9}, {"started": 1.8e9})
NO_FAMILIES = run.history(
    [run.reading(name, when, {"started": 1.7e9}) for when in ("before", "after") for name in ("prefill-0", "decode-0")]
)


@pytest.mark.parametrize("checker", COUNTING)
@pytest.mark.parametrize(
    ("history", "reason"),
    [
        (WITHOUT_AFTER, "there is no reading after the phase"),
        (FAILED, "connection refused"),
        (UNSETTLED, "2 requests are still running"),
        (RESTARTED, "restarted"),
        (NO_FAMILIES, "exposes no vllm:"),
        (run.history([]), "no phase was counted"),
        (History(()), "no phase was counted"),
    ],
)
def test_missing_evidence_is_unknown_and_says_why(checker: Any, history: History, reason: str) -> None:
    check = checker(run.DEPLOYMENT, history)
    assert check.verdict is Verdict.UNKNOWN
    assert reason in check.summary


def test_a_phase_that_cannot_be_predicted_is_unknown() -> None:
    spoken = replace(run.request(1), request_id="spoken", prompt="a text without token ids")
    operations = (*run.operation(run.request(0)), *run.operation(spoken, usage=Usage(128, 5)))
    check = token_sources(run.DEPLOYMENT, run.history(operations=operations))
    assert check.verdict is Verdict.UNKNOWN
    assert "spoken was tokenized is not known" in check.summary


def ended(**fields: Any) -> History:
    return run.history(operations=(*run.operation(run.request(0), **fields), *run.operation(run.request(1))))


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"outcome": Outcome.INFO, "status": 500, "cause": "boom"}, Verdict.INVALID),
        ({"outcome": Outcome.FAIL, "status": 400, "cause": "bad"}, Verdict.INVALID),
        ({"outcome": Outcome.INFO, "status": 200, "cause": "the stream broke off"}, Verdict.INVALID),
        ({"outcome": Outcome.INFO, "status": None, "cause": "timeout after 60 s"}, Verdict.UNKNOWN),
        (
            {"outcome": Outcome.INFO, "status": 200, "cause": "no end within 60 s", "ending": Ending.TIMED_OUT},
            Verdict.UNKNOWN,
        ),
        ({"outcome": Outcome.FAIL, "status": None, "cause": "connection refused"}, Verdict.UNKNOWN),
        ({}, Verdict.VALID),
    ],
)
def test_a_failed_answer_is_invalid_and_a_missing_one_unknown(fields: dict[str, Any], verdict: Verdict) -> None:
    check = completion(run.DEPLOYMENT, ended(**fields))
    assert check.verdict is verdict
    assert fields.get("cause", "2 of 2") in check.summary
    assert [finding.subject for finding in check.findings] == (["r0"] if fields else [])


def test_a_run_without_completed_requests_on_the_path_under_test_is_unknown() -> None:
    assert completion(run.DEPLOYMENT, run.history(operations=())).verdict is Verdict.UNKNOWN
    never = run.operation(run.request(0))[:1]
    assert completion(run.DEPLOYMENT, run.history(operations=never)).verdict is Verdict.UNKNOWN


def test_a_run_that_ended_early_is_unknown() -> None:
    whole = run.history()
    killed = History(tuple(entry for entry in whole.entries if not isinstance(entry, RunEnded)))
    assert completion(run.DEPLOYMENT, killed).verdict is Verdict.UNKNOWN


def test_the_finding_of_a_wrong_token_has_its_index_and_the_references_margin() -> None:
    wrong = ended(choices=(Choice((7, 8, 99, 10, 11)),))
    check = outputs(run.DEPLOYMENT, wrong)
    assert check.verdict is Verdict.INVALID
    (finding,) = check.findings
    assert finding.subject == "r0"
    assert "output token 2: 99 instead of 9" in finding.text
    assert "0.8000 nats" in finding.text


def test_an_output_that_ends_early_is_invalid() -> None:
    assert outputs(run.DEPLOYMENT, ended(choices=(Choice((7, 8)),))).verdict is Verdict.INVALID


@pytest.mark.parametrize("choices", [(), (Choice(()),)])
def test_an_output_without_token_ids_is_unverified(choices: tuple[Choice, ...]) -> None:
    assert outputs(run.DEPLOYMENT, ended(choices=choices)).verdict is Verdict.UNKNOWN


def test_a_missing_or_failed_reference_is_unknown_and_does_not_hide_a_mismatch() -> None:
    served = (*run.operation(run.request(0)), *run.operation(run.request(1)))
    alone = outputs(run.DEPLOYMENT, History((*served, *run.reference(0))))
    assert (alone.verdict, alone.findings[0].subject) == (Verdict.UNKNOWN, "r1")
    failed = run.reference(1, outcome=Outcome.INFO, cause="boom", choices=())
    assert outputs(run.DEPLOYMENT, History((*served, *run.reference(0), *failed))).verdict is Verdict.UNKNOWN
    odd = run.reference(0, choices=(Choice((1,)),))
    assert outputs(run.DEPLOYMENT, History((*served, *odd))).verdict is Verdict.INVALID
    assert outputs(run.DEPLOYMENT, History(())).verdict is Verdict.UNKNOWN


def last_reading(**changes: Any) -> History:
    """The clean run with a changed last reading of P: ``values``, or fields of the entry."""
    values = changes.pop("values", {})
    last = run.reading("prefill-0", "after", run.PREFILL | values, **changes)
    return run.history([*run.readings()[:2], last, run.readings()[3]])


def test_blocks_that_were_not_released_are_invalid() -> None:
    check = settled(run.DEPLOYMENT, last_reading(values={"kv_usage": 0.25}, settled=False, unsettled_because="held"))
    assert check.verdict is Verdict.INVALID
    assert "prefill-0: 25.00% of its KV blocks are still held after load, 0.00% before" in check.summary


def test_a_request_still_running_after_the_phase_is_invalid_if_only_this_run_uses_the_server() -> None:
    history = last_reading(values={"running": 1}, settled=False, unsettled_because="1 requests are still running")
    assert settled(run.DEPLOYMENT, history).verdict is Verdict.INVALID
    assert settled(replace(run.DEPLOYMENT, launched=False), history).verdict is Verdict.UNKNOWN


def test_unsettled_or_missing_readings_are_unknown() -> None:
    for history in (UNSETTLED, FAILED, WITHOUT_AFTER, run.history([])):
        assert settled(run.DEPLOYMENT, history).verdict is Verdict.UNKNOWN
    assert settled(run.DEPLOYMENT, run.history()).verdict is Verdict.VALID


def test_a_client_that_did_not_keep_up_or_has_no_record_is_unknown() -> None:
    for strained in (
        ClientHealth(0.0, 0.5, 3.0, 0.01, 0.2),
        ClientHealth(0.0, 0.5, 0.0, 0.3, 0.2),
        ClientHealth(0.0, 0.5, 0.0, 0.01, 0.99),
    ):
        assert client_health(run.DEPLOYMENT, History((strained,))).verdict is Verdict.UNKNOWN
    # One long delay, on a machine shared with the servers, is shown but not held against the client.
    assert client_health(run.DEPLOYMENT, History((ClientHealth(0.0, 3.0, 0.1, 0.01, 0.2),))).verdict is Verdict.VALID
    assert client_health(run.DEPLOYMENT, History(())).verdict is Verdict.UNKNOWN


def test_checkers_of_absent_connectors_are_left_out() -> None:
    alone = run.DEPLOYMENT.with_servers(connectors=(Connector.NIXL,))
    names = {check.name for check in judge(alone, run.history()).checks}
    assert "offload_bytes" not in names
    assert "nixl_bytes" in names
    unknown = run.DEPLOYMENT.with_servers(connectors=None)
    assert "offload_bytes" in {check.name for check in judge(unknown, run.history()).checks}


def test_a_checker_that_crashes_is_unknown() -> None:
    def broken(_deployment: Deployment, _history: History) -> Any:
        raise ZeroDivisionError("planted")

    judgement = judge(run.DEPLOYMENT, run.history(), [(broken, None)])
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.checks[0].summary == "the checker itself failed: ZeroDivisionError: planted"
