"""Where the prompt tokens came from: finds a decode server that computes KV which it should have received.

A deployment that has silently lost its KV transfer still answers every request correctly, only slower and at twice the
cost. vLLM's counters show it: they count for each prompt token whether it was computed, found in the local cache, or
received by KV transfer. These counters and the cache lookups are compared exactly, per server and phase. Because the
counters may be wrong too, there are two cross-checks: the three sources must add up to the server's prompt tokens, and
prompt tokens must equal those in the ``usage`` of the clients' answers.

If only one token of a prompt was left to compute, releases before 0.20 count it twice: as cached or received, and as
computed. These releases count such cases in a metric family of their own, which excuses at most one token per request.
"""

from collections.abc import Iterator
from dataclasses import replace

from harness.checkers.by_phase import by_phase
from harness.checkers.evidence import NOT_COUNTED, Evidence, first_problem, was_served
from harness.checkers.gathering import gather
from harness.checkers.incarnations import counted
from harness.checkers.unknown_facts import excused_by_unlisted
from harness.facts import Deployment, Role
from harness.history import History, Operation, Outcome
from harness.scenario import Route
from harness.verdict import Bounds, Check, Comparison, Verdict, worst

SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_COUNTERS = (
    "external_kv_transfer",
    "local_compute",
    "local_cache_hit",
    "prompt_tokens",
    "generation_tokens",
    "prefix_queries",
    "prefix_hits",
    "external_queries",
    "external_hits",
)
_COUNTED_AGAIN = ("local_compute", "local_cache_hit")
_ROUTES = {Role.PREFILL: (Route.PROXY, Route.PREFILL), Role.DECODE: (Route.PROXY, Route.DECODE)}


def token_sources(deployment: Deployment, history: History) -> Check:
    """Every prompt token came from the source that was predicted."""
    evidence = gather(deployment, history)
    # Decode first, so that the summary begins with what was transferred.
    ordered = sorted(evidence, key=lambda one: one.role is not Role.DECODE)
    comparisons = tuple(comparison for one in ordered for comparison in _compared(deployment, one))
    comparisons += tuple(_against_usage(deployment, evidence, history))
    verdict = worst(comparison.verdict for comparison in comparisons)
    if verdict is Verdict.VALID and not was_served(history):
        why = "no request was served, so there were no prompt tokens to account for"
        return Check("token_sources", Verdict.UNKNOWN, why, comparisons)
    return Check("token_sources", verdict, _summary(tuple(ordered), comparisons), comparisons)


def _compared(deployment: Deployment, evidence: Evidence) -> Iterator[Comparison]:
    servers = deployment.named(evidence.server)
    for counter in _COUNTERS:
        yield excused_by_unlisted(_with_recomputed(evidence, evidence.compare(counter)), servers)
    whole, parts = evidence.delta.of("prompt_tokens"), [evidence.delta.of(source) for source in SOURCES]
    known = [part for part in parts if part is not None]
    if whole is None or len(known) < len(parts):
        why = next(filter(None, map(evidence.delta.why, ("prompt_tokens", *SOURCES))), "")
        yield evidence.comparison("sum over sources", None, None, why)
    else:
        again = int(evidence.delta.of("recomputed") or evidence.expectation.counted_again)
        yield evidence.comparison("sum over sources", Bounds(int(whole), int(whole) + again), sum(known))


def _with_recomputed(evidence: Evidence, comparison: Comparison) -> Comparison:
    again, expected = evidence.delta.of("recomputed"), comparison.expected
    if not again or expected is None or comparison.counter not in _COUNTED_AGAIN:
        return comparison
    return replace(comparison, expected=Bounds(expected.low, expected.high + int(again)))


def _against_usage(deployment: Deployment, evidence: tuple[Evidence, ...], history: History) -> Iterator[Comparison]:
    """Compare the servers' prompt tokens with those of the clients' ``usage``, per phase and role."""
    groups: dict[tuple[str, str, Role], list[Evidence]] = {}
    for one in evidence:
        groups.setdefault((one.scenario, one.phase, one.role), []).append(one)
    for (scenario, phase, role), members in groups.items():
        asked = [
            operation
            for operation in by_phase(history).operations((scenario, phase))
            if operation.request.route in _ROUTES[role] and counted(deployment, history, role, operation)
        ]
        yield _usage(members, asked, role, _left_to_decode(deployment, asked, role))


def _left_to_decode(deployment: Deployment, asked: list[Operation], role: Role) -> int:
    """Prompt tokens that prefill may leave to decode: for some kinds of model, the last one of each prompt.

    Only answered requests count: prefill may leave out any part of the others' prompts.
    """
    if role is not Role.PREFILL or not deployment.cache_rules_unknown:
        return 0
    return sum(one.request.route is Route.PROXY and one.outcome is Outcome.OK for one in asked)


def _usage(members: list[Evidence], asked: list[Operation], role: Role, left: int) -> Comparison:
    first, counter = members[0], "prompt_tokens beside the clients' usage"
    observed = [one.delta.of("prompt_tokens") for one in members]
    predicted = [one.expectation.of("prompt_tokens") for one in members]
    known = [value for value in observed if value is not None]
    completed = [operation for operation in asked if operation.outcome is Outcome.OK]
    used = [one.ended.usage.prompt_tokens * _times(one, role) for one in completed if one.ended.usage is not None]
    why = (
        next((one.delta.why("prompt_tokens") or one.expectation.why("prompt_tokens") for one in members), "")
        or f"answers without usage: {len(completed) - len(used)}"
    )
    if len(known) < len(observed) or None in predicted or len(used) < len(completed):
        return Comparison(first.scenario, first.phase, str(role), counter, None, None, why)
    # Any part of the prompt of a request that did not complete may have been counted.
    low = sum(used)
    slack = sum(bounds.high - bounds.low for bounds in predicted if bounds is not None)
    bounds = Bounds(max(low - left, 0), low + slack - min(left, slack))
    theirs = [one.others for one in members if one.others is not None]
    elsewhere = next((one.elsewhere for one in members if one.elsewhere), "")
    lowest = 0 if elsewhere else bounds.low
    more = sum(one.tokens for one in theirs)
    explained = Bounds(lowest, bounds.high + more) if theirs or elsewhere else None
    why = theirs[0].why if theirs else elsewhere
    return Comparison(first.scenario, first.phase, str(role), counter, bounds, sum(known), why, explained)


def _times(operation: Operation, role: Role) -> int:
    """How often a server counts a prompt that ``usage`` counts once: per choice, except on P behind the proxy."""
    handed_over = operation.request.route is Route.PROXY and role is Role.PREFILL
    return 1 if handed_over else operation.request.sampling.n or 1


def _summary(evidence: tuple[Evidence, ...], comparisons: tuple[Comparison, ...]) -> str:
    if not evidence:
        return NOT_COUNTED
    problem = first_problem(comparisons)
    pulled = [(one, one.expectation.of("external_kv_transfer")) for one in evidence if one.role is Role.DECODE]
    wanted_of = [(one, bounds) for one, bounds in pulled if bounds is not None and bounds.high > 0]
    decode = [one for one, _ in wanted_of]
    taken = [one.delta.of("external_kv_transfer") for one in decode]
    if not decode or None in taken:
        return problem or "every prompt token came from the predicted source"
    wanted = sum((bounds for _, bounds in wanted_of), Bounds(0, 0))
    came = sum(value for value in taken if value is not None)
    if not came and wanted.low:
        return f"{_instead(decode)}: nothing was transferred (expected {wanted} by KV transfer)"
    line = f"decode received {came:,} of {wanted} prompt tokens by KV transfer"
    return f"{line}; {problem}" if problem else line


def _instead(decode: list[Evidence]) -> str:
    """How the decode servers got the prompts, if nothing was transferred."""
    prompt, computed = (sum(one.delta.of(name) or 0 for one in decode) for name in ("prompt_tokens", "local_compute"))
    if not prompt:
        return "decode received no prompt at all"
    if computed == prompt:
        return "decode computed every prompt token itself"
    return f"decode computed {computed:,} of {prompt:,} prompt tokens and found the rest in its own cache"
