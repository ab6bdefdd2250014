"""Advice on counters that are not what they should be, or that nobody knows."""

from collections.abc import Iterator
from fractions import Fraction

from harness.checkers.advice.context import INTERRUPTED, Context, plural
from harness.checkers.advice.readings import restless, unusable
from harness.checkers.evidence import gather
from harness.facts import Connector, Role
from harness.history import Outcome
from harness.verdict import Advice, Comparison, Verdict

_MIRRORED = ("external_kv_transfer", "local_compute", "nixl_bytes")
_LARGEST_RATIO = 8
"""Numerator and denominator of a ratio that two models' sizes may have; anything else is no other model."""


def of_token_sources(context: Context) -> Advice | None:
    """Of prompt tokens that came from elsewhere than they should."""
    if rewritten := _rewritten(context):
        return rewritten
    if not context.invalid:
        return _never_came(context) or _of_unknown(context)
    return (
        _swapped(context)
        or _never_came(context)
        or _nothing_transferred(context)
        or _metrics_disagree(context)
        or Advice(
            "some requests took another path than prefill, transfer, decode: parameters dropped for some, retried or "
            "preempted requests, or a prefix cache that finds more or less than it holds",
            "look at which server and phase differ; repeat with --concurrency 1, then shrink",
        )
    )


def of_nixl_bytes(context: Context) -> Advice | None:
    """Of bytes moved by NIXL."""
    if not context.invalid:
        return _of_unknown(context)
    if context.is_bad("token_sources"):
        return Advice("as under token_sources", "see there")
    ratio = _ratio(context)
    if ratio and not _tier_has_the_bytes(context):
        return Advice(
            f"the bytes are exactly {ratio.numerator}/{ratio.denominator} of what {context.deployment.model_path} has: "
            "the configuration given with --model, or the type given with --kv-cache-dtype, is not the served one's",
            "name the model that the servers load",
        )
    more = any(
        one.observed > one.expected.high for one in context.problems() if one.expected and one.observed is not None
    )
    return Advice(
        "blocks are read beyond their end, or twice" if more else "part of a prompt's blocks was not transferred",
        "compare block sizes and tensor-parallel sizes of prefill and decode; then shrink",
    )


def of_offload_bytes(context: Context) -> Advice | None:
    """Of bytes to and from the offload tier."""
    if not context.invalid:
        return _of_unknown(context)
    if context.is_bad("token_sources"):
        return Advice("as under token_sources", "see there")
    return Advice(
        "the tier was given, or gave back, other blocks than the prompts have: MultiConnector asks its connectors in "
        "another order than is configured, or the tier evicts earlier than its size says",
        "compare cpu_bytes_to_use and the connectors' order on every server",
    )


def of_failed_transfers(context: Context) -> Advice | None:
    """Of transfers that the engine itself counts as failed or late."""
    if not context.invalid:
        return _of_unknown(context)
    counters = {one.counter for one in context.problems()}
    if "nixl_after_expiry" in counters:
        return Advice(
            "decode reads blocks after prefill has let go of them: requests wait longer than the lease",
            "raise kv_lease_duration, or lower --concurrency; outputs of such requests may be another request's",
        )
    if "nixl_expired" in counters:
        return Advice(
            "decode never fetched blocks that prefill kept for it: a request was cancelled, refused by decode, or sent "
            "to a decode server without the parameters",
            "look for the request ids of that time in the proxy's and decode's logs",
        )
    return Advice(
        "decode cannot reach prefill's side channel or its memory, or their handshake fails",
        "look for NIXL's errors in the decode server's log; check VLLM_NIXL_SIDE_CHANNEL_HOST and its port",
    )


# --- wrong ---


def _rewritten(context: Context) -> Advice | None:
    """Prompts of other lengths than were sent, by the servers' own words."""
    answered = [one for one in context.load() if one.outcome is Outcome.OK and one.prompt_token_ids is not None]
    told = [(one, one.ended.usage.prompt_tokens) for one in answered if one.ended.usage is not None]
    unlike = [one for one, tokens in told if tokens != len(one.prompt_token_ids or ())]
    if not unlike:
        return None
    return Advice(
        f"{plural(len(unlike), 'prompt')} reached the servers with another number of tokens than was sent: something "
        "between here and them rewrites prompts, or exchanges answers",
        "let token ids pass unchanged, or ask the harness's own proxy (leave --base-url out)",
    )


def _swapped(context: Context) -> Advice | None:
    """Each role counted exactly what the other should have, and something was transferred."""
    seen = [one for one in context.check.comparisons if one.counter in _MIRRORED]
    prefill, decode = ([one for one in seen if _is_of(context, one, role)] for role in Role)
    pairs = [
        (one, other)
        for one in prefill
        for other in decode
        if (one.scenario, one.phase, one.counter) == (other.scenario, other.phase, other.counter)
    ]
    moved = any(one.observed for one, _ in pairs if one.counter == "external_kv_transfer")
    if not pairs or not moved or not all(_mirror(*pair) and _mirror(*reversed(pair)) for pair in pairs):
        return None
    return Advice(
        "prefill counted exactly what decode should have, and decode what prefill should have: their URLs are swapped",
        "exchange --prefill-url and --decode-url",
    )


def _mirror(one: Comparison, other: Comparison) -> bool:
    return one.observed is not None and other.expected is not None and one.observed in other.expected


def _never_came(context: Context) -> Advice | None:
    """Fewer prompt tokens than were sent: some requests went past prefill, or to servers that nobody reads."""
    short = [one for one in context.problems() if one.counter == "prompt_tokens" and _below(one)]
    if not short:
        return None
    roles = " and ".join(sorted({one.server for one in short}))
    missing = sum(one.expected.low - int(one.observed or 0) for one in short if one.expected)
    requests = _requests_that_never_came(context)
    told = f", {plural(requests, 'request')}" if requests else ""
    if all(_is_of(context, one, Role.PREFILL) for one in short) and (alone := _computed_by_decode(context)):
        return Advice(
            f"{plural(missing, 'prompt token')}{told} never came to {roles}, and decode computed {alone:,} itself: "
            "some requests are sent to decode without prefill",
            "look for what sends them past the proxy, or past its prefill step (a gateway's own routes, retries or "
            "fallbacks, a proxy that decodes short prompts by itself)",
        )
    return Advice(
        f"{plural(missing, 'prompt token')}{told} never came to {roles}: the proxy also asks servers that are not "
        "listed",
        "name every server behind the proxy with --prefill-url and --decode-url",
    )


def _computed_by_decode(context: Context) -> int:
    """Prompt tokens that decode servers computed beyond what they should have."""
    more = [one for one in context.problems() if one.counter == "local_compute" and _is_of(context, one, Role.DECODE)]
    return sum(max(int(one.observed or 0) - one.expected.high, 0) for one in more if one.expected)


def _requests_that_never_came(context: Context) -> int:
    """By the tokens that were not generated: prefill generates one for each request, decode as many as were asked.

    0 where that cannot be told, since requests ask for unlike numbers.
    """
    counted = [one for one in context.check.comparisons if one.counter == "generation_tokens" and _below(one)]
    missing = {
        role: sum(
            one.expected.low - int(one.observed or 0) for one in counted if one.expected and _is_of(context, one, role)
        )
        for role in Role
    }
    if missing[Role.PREFILL]:
        return missing[Role.PREFILL]
    lengths = {sum(len(choice.token_ids) for choice in one.ended.choices) for one in context.load()}
    length = lengths.pop() if len(lengths) == 1 else 0
    return missing[Role.DECODE] // length if length and not missing[Role.DECODE] % length else 0


def _is_of(context: Context, one: Comparison, role: Role) -> bool:
    return role in [server.role for server in context.deployment.named(one.server)]


def _nothing_transferred(context: Context) -> Advice | None:
    wrong = [one for one in context.problems() if one.counter == "external_kv_transfer" and _below(one)]
    if not wrong or any(one.observed for one in wrong):
        return None
    lacking = [s.name for s in context.deployment.of(Role.DECODE) if s.has(Connector.NIXL) is False]
    if lacking:
        return Advice(
            f"{' and '.join(lacking)} has no connector that takes KV over", "launch it with --kv-transfer-config"
        )
    return Advice(
        "kv_transfer_params do not reach decode: the proxy drops or changes them, or prefill hands over none",
        "look at prefill's answer for kv_transfer_params, and at what the proxy sends to decode",
    )


def _metrics_disagree(context: Context) -> Advice | None:
    # The sources of one server's tokens add up, whatever path its requests took.
    if any(one.counter == "sum over sources" for one in context.problems()):
        return Advice("the engine's own counters contradict each other", "report it to the engine's developers")
    return None


def _below(one: Comparison) -> bool:
    return one.expected is not None and one.observed is not None and one.observed < one.expected.low


def _tier_has_the_bytes(context: Context) -> bool:
    """Whether the offload tier was given just the bytes that the configuration makes: then it is the served one."""
    tier = context.other("offload_bytes")
    stored = [one for one in tier.comparisons if one.counter == "offload_store_bytes"] if tier else []
    return any(one.verdict is Verdict.VALID and one.observed and one.expected and one.expected.exact for one in stored)


def _ratio(context: Context) -> Fraction | None:
    """What was observed beside what was expected, if it is one simple ratio on every server and in every phase."""
    wrong = [one for one in context.problems() if one.counter == "nixl_bytes"]
    ratios = {
        Fraction(int(one.observed), one.expected.low)
        for one in wrong
        if one.observed and one.expected is not None and one.expected.exact and one.expected.low
    }
    if len(ratios) != 1 or len(wrong) < len(context.problems()):
        return None
    (ratio,) = ratios
    return ratio if max(ratio.numerator, ratio.denominator) <= _LARGEST_RATIO and ratio != 1 else None


# --- unknown ---


def _of_unknown(context: Context) -> Advice:
    return next(_reasons(context), _MISSING)


_MISSING = Advice("the servers do not tell a fact or a counter that this check needs", "see the reason above")


def _reasons(context: Context) -> Iterator[Advice]:
    evidence = gather(context.deployment, context.history)
    if any(one.leftover and not one.others for one in evidence) and any(one.explained for one in context.problems()):
        yield Advice(
            "these prompts were asked before, and cache salts, which are to keep runs apart, are dropped or not heeded",
            "give a --seed that no run on this deployment had",
        )
    if any(one.elsewhere for one in evidence) and any(one.explained for one in context.problems()):
        yield Advice(
            "the proxy also asks servers that are not listed",
            "name every server behind the proxy with --prefill-url and --decode-url",
        )
    if any(one.explained is not None for one in context.problems()):
        yield Advice(
            "somebody else's requests reach the same servers (a health probe, another client, a second harness), or a "
            "gateway sends some requests twice",
            "turn retries and mirroring off there, and run when nobody else asks, or on a deployment of the harness's "
            "own",
        )
    yield from unusable(context)
    if context.history.ended_early:
        yield INTERRUPTED
    yield from restless(context)
    if unknown := context.deployment.unknown_connectors():
        names = " and ".join(dict.fromkeys(name for each in unknown.values() for name in each))
        yield Advice(f"the harness does not know the connector {names}", "rely on the check of the outputs for it")
    if untold := [server.name for server in context.deployment.servers if server.block_size is None]:
        yield Advice(
            f"{untold[0]} does not tell its block size",
            "start it with VLLM_SERVER_DEV_MODE=1, or with a frontend whose /metrics has vllm:cache_config_info",
        )
    if absent := [one for one in context.problems() if one.observed is None]:
        yield Advice(
            f"/metrics of {absent[0].server} lacks a counter that this check needs, or shows what it cannot mean",
            "see the reason above, and whether something between here and the server leaves lines out",
        )
    if any(server.engines > 1 for server in context.deployment.servers):
        yield Advice(
            "several data-parallel engines stand behind one URL, each with caches of its own",
            "give each engine its own URL if hits are to be judged exactly",
        )
    if context.deployment.geometry is None:
        yield Advice(
            "the bytes of the model's KV cache cannot be predicted",
            "give the configuration that is served with --model, if its KV cache is of one kind in all layers, and the "
            "type of its KV with --kv-cache-dtype",
        )
