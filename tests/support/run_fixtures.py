"""A small run, made by hand, for tests of store and reports."""

from dataclasses import replace

from harness.facts import Connector, Deployment, Role, Server
from harness.history import Choice, Ended, Entry, History, Outcome, PhaseStarted, RunEnded, RunStarted, Sent, Usage
from harness.scenario import Purpose, Request, Route
from harness.verdict import Bounds, Check, Comparison, Finding, Judgement, Outputs, Verdict

DEPLOYMENT = Deployment(
    servers=(
        Server("prefill-0", Role.PREFILL, "http://127.0.0.1:8100", block_size=32, num_blocks=512, version="0.32.0"),
        Server("decode-0", Role.DECODE, "http://127.0.0.1:8200", block_size=32, num_blocks=512, version="0.32.0"),
    ),
    proxy_url="http://127.0.0.1:8000",
    model="canary",
    launched=True,
    device="cpu",
).with_servers(connectors=(Connector.NIXL, Connector.OFFLOADING))

STARTED = RunStarted(
    wall=1767323045.0,  # 2026-01-02 03:04:05 UTC
    argv=("--concurrency", "32", "--header", "Authorization=Bearer sesame"),
    seed=7,
    harness_version="0.1.0",
    commit="0123abc",
    scenarios=("random_load",),
)


def ended(request_id: str, sent_at: float, outcome: Outcome = Outcome.OK) -> Ended:
    if outcome is not Outcome.OK:
        return Ended(sent_at + 1.0, request_id, outcome, "500: engine died", 500)
    return Ended(
        at=sent_at + 0.5,
        request_id=request_id,
        outcome=outcome,
        status=200,
        choices=(Choice((5, 6, 7), "a b c", "length"),),
        usage=Usage(4, 3),
        token_times=(sent_at + 0.2, sent_at + 0.3, sent_at + 0.5),
        tokens_per_chunk=(1, 1, 1),
    )


def entries() -> tuple[Entry, ...]:
    """Two requests under test, one of which failed, and a reference."""
    a, b = Request("load-0", (1, 2, 3, 4)), Request("load-1", (5, 6))
    reference = replace(
        a, request_id="load-0-reference", route=Route.PREFILL, purpose=Purpose.REFERENCE, about="load-0"
    )
    return (
        STARTED,
        PhaseStarted(1.0, "random_load", "load"),
        Sent(1.0, a, "random_load", "load", 1.0),
        Sent(1.1, b, "random_load", "load", 1.0),
        ended("load-0", 1.0),
        ended("load-1", 1.0, Outcome.INFO),
        PhaseStarted(3.0, "random_load", "reference"),
        Sent(3.0, reference, "random_load", "reference", 3.0),
        ended("load-0-reference", 3.0),
        RunEnded(4.0),
    )


HISTORY = History(entries())


def compared(
    server: str,
    counter: str,
    expected: Bounds | int | None,
    observed: float | None,
    why: str = "",
    *,
    phase: str = "load",
) -> Comparison:
    bounds = Bounds.exactly(expected) if isinstance(expected, int) else expected
    return Comparison("random_load", phase, server, counter, bounds, observed, why)


VALID = Judgement(
    (
        Check("outputs", Verdict.VALID, "128 of 128 outputs equal their reference token for token"),
        Check(
            "token_sources",
            Verdict.VALID,
            "decode received 26,913 of 26,913 prompt tokens by KV transfer",
            (
                compared("decode-0", "external_kv_transfer", 26913, 26913.0),
                compared("decode-0", "local_compute", 0, 0.0),
                compared("decode-0", "prompt_tokens", 26913, 26913.0),
                compared("prefill-0", "local_compute", 26913, 26913.0),
            ),
        ),
        Check(
            "nixl_bytes",
            Verdict.VALID,
            "as predicted",
            (compared("decode-0", "nixl_bytes", 238551040, 238551040.0), compared("prefill-0", "nixl_bytes", 0, 0.0)),
        ),
    ),
    Outputs(128, 126, 2, 0, 0),
)

INVALID = Judgement(
    (
        Check("outputs", Verdict.VALID, "128 of 128 outputs equal their reference token for token"),
        Check(
            "offload_bytes",
            Verdict.UNKNOWN,
            "offload_store_bytes of prefill-0 in load is unknown: the deployment had not settled",
            (compared("prefill-0", "offload_store_bytes", 99614720, None, "not settled"),),
        ),
        Check(
            "token_sources",
            Verdict.INVALID,
            "decode computed every prompt token itself: nothing was transferred",
            (
                compared("decode-0", "external_kv_transfer", 26913, 0.0),
                compared("decode-0", "local_compute", 0, 26913.0),
                compared("decode-0", "local_cache_hit", 0, 0.0),
                compared("decode-0", "prompt_tokens", 26913, 26913.0),
                compared("prefill-0", "local_compute", 26913, 0.0),
            ),
            tuple(Finding(f"load-{n}", "answered without KV from prefill-0") for n in range(5)),
        ),
    ),
    Outputs(128, 128, 0, 0, 0),
)

UNKNOWN = Judgement(
    (Check("outputs", Verdict.UNKNOWN, "no request completed", findings=(Finding("load-1", "500: engine died"),)),),
)
