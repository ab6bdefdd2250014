"""Advice on counters that are not as expected."""

from fractions import Fraction

from harness.checkers.advice.context import Context, plural
from harness.checkers.advice.unknown_counters import UNLISTED, of_unknown_counters
from harness.facts import Connector, Role
from harness.history import Outcome
from harness.verdict import Advice, Comparison, Verdict

_MIRRORED = ("external_kv_transfer", "local_compute", "nixl_bytes")
_LARGEST_RATIO = 8
"""The largest numerator or denominator of a ratio of bytes that a different model or type may explain."""


def of_token_sources(context: Context) -> Advice | None:
    """Advice on prompt tokens that came from another source than predicted."""
    if rewritten := _rewritten(context):
        return rewritten
    if not context.invalid:
        return _never_came(context) or of_unknown_counters(context)
    return (
        _swapped(context)
        or _never_came(context)
        or _nothing_transferred(context)
        or _metrics_disagree(context)
        or Advice(
            "some requests took another path than prefill, transfer, decode: their parameters were dropped, they were "
            "retried or preempted, or a prefix cache finds more or less than it holds",
            "see which server and phase differ; repeat with --concurrency 1, then run `python -m harness shrink`",
        )
    )


def of_nixl_bytes(context: Context) -> Advice | None:
    """Advice on bytes moved by NIXL."""
    if not context.invalid:
        return of_unknown_counters(context)
    if context.is_bad("token_sources"):
        return _AS_TOKEN_SOURCES
    ratio = _ratio(context)
    if ratio and not _tier_has_the_bytes(context):
        return Advice(
            f"the bytes are exactly {ratio.numerator}/{ratio.denominator} of those that "
            f"{context.deployment.model_path} needs: the servers load another model than --model, or another KV type "
            "than --kv-cache-dtype",
            "give the model and the type that the servers load",
        )
    more = any(
        one.observed > one.expected.high for one in context.problems() if one.expected and one.observed is not None
    )
    return Advice(
        "blocks are read beyond their end, or twice" if more else "part of a prompt's blocks was not transferred",
        "compare block sizes and tensor-parallel sizes of prefill and decode, then run `python -m harness shrink`",
    )


def of_offload_bytes(context: Context) -> Advice | None:
    """Advice on bytes stored in and loaded from the offload tier."""
    if not context.invalid:
        return of_unknown_counters(context)
    if context.is_bad("token_sources"):
        return _AS_TOKEN_SOURCES
    return Advice(
        "other blocks than predicted were stored in the tier or loaded from it: MultiConnector asks its connectors in "
        "another order than configured, or the tier evicts earlier than its size says",
        "compare cpu_bytes_to_use and the connectors' order on every server",
    )


_AS_TOKEN_SOURCES = Advice("the same as for token_sources", "see token_sources")


def of_failed_transfers(context: Context) -> Advice | None:
    """Advice on transfers that the engine counts as failed or late."""
    if not context.invalid:
        return of_unknown_counters(context)
    counters = {one.counter for one in context.problems()}
    if "nixl_after_expiry" in counters:
        return Advice(
            "decode reads blocks after prefill has released them, because requests wait longer than the lease",
            "raise kv_lease_duration, or lower --concurrency; such requests may be answered from another request's KV",
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


def _rewritten(context: Context) -> Advice | None:
    """Advice if the servers report prompts of other lengths than were sent."""
    answered = [one for one in context.load() if one.outcome is Outcome.OK and one.prompt_token_ids is not None]
    reported = [(one, one.ended.usage.prompt_tokens) for one in answered if one.ended.usage is not None]
    unlike = [one for one, tokens in reported if tokens != len(one.prompt_token_ids or ())]
    if not unlike:
        return None
    return Advice(
        f"{plural(len(unlike), 'prompt')} reached the servers with another number of tokens than was sent: something "
        "between the client and the servers rewrites prompts, or exchanges answers",
        "make the gateway forward token ids unchanged, or use the harness's own proxy (leave out --base-url)",
    )


def _swapped(context: Context) -> Advice | None:
    """Advice if prefill and decode each counted exactly the values expected of the other, and KV was transferred."""
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
        "prefill counted exactly the values expected of decode, and decode those of prefill: their URLs are swapped",
        "exchange --prefill-url and --decode-url",
    )


def _mirror(one: Comparison, other: Comparison) -> bool:
    return one.observed is not None and other.expected is not None and one.observed in other.expected


def _never_came(context: Context) -> Advice | None:
    """Advice if servers counted fewer prompt tokens than were sent."""
    short = [one for one in context.problems() if one.counter == "prompt_tokens" and _below(one)]
    if not short:
        return None
    roles = " and ".join(sorted({one.server for one in short}))
    missing = sum(one.expected.low - int(one.observed or 0) for one in short if one.expected)
    requests = _requests_that_never_came(context)
    count = f", {plural(requests, 'request')}" if requests else ""
    if all(_is_of(context, one, Role.PREFILL) for one in short) and (alone := _computed_by_decode(context)):
        return Advice(
            f"{plural(missing, 'prompt token')}{count} never reached {roles}, and decode computed {alone:,} itself: "
            "some requests are sent to decode without prefill",
            "find what bypasses the proxy or its prefill step (a gateway's own routes, retries or fallbacks, or a "
            "proxy that sends short prompts directly to decode)",
        )
    return Advice(f"{plural(missing, 'prompt token')}{count} never reached {roles}: {UNLISTED.cause}", UNLISTED.remedy)


def _computed_by_decode(context: Context) -> int:
    """How many more prompt tokens decode servers computed than expected."""
    more = [one for one in context.problems() if one.counter == "local_compute" and _is_of(context, one, Role.DECODE)]
    return sum(max(int(one.observed or 0) - one.expected.high, 0) for one in more if one.expected)


def _requests_that_never_came(context: Context) -> int:
    """The number of requests, derived from the tokens that were not generated; 0 if unknown.

    Prefill generates one token per request. Decode generates as many as asked for, which must be the same number for
    all requests.
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
            f"{' and '.join(lacking)} has no connector that receives KV", "launch it with --kv-transfer-config"
        )
    return Advice(
        "kv_transfer_params do not reach decode: the proxy drops or changes them, or prefill returns none",
        "look for kv_transfer_params in prefill's answer and in the request that the proxy sends to decode",
    )


def _metrics_disagree(context: Context) -> Advice | None:
    # The sources of a server's prompt tokens must add up, whatever path its requests took.
    if any(one.counter == "sum over sources" for one in context.problems()):
        return Advice("the engine's own counters contradict each other", "report it to the engine's developers")
    return None


def _below(one: Comparison) -> bool:
    return one.expected is not None and one.observed is not None and one.observed < one.expected.low


def _tier_has_the_bytes(context: Context) -> bool:
    """Whether the offload tier got exactly the predicted bytes, so that the model's configuration must be right."""
    tier = context.other("offload_bytes")
    stored = [one for one in tier.comparisons if one.counter == "offload_store_bytes"] if tier else []
    return any(one.verdict is Verdict.VALID and one.observed and one.expected and one.expected.exact for one in stored)


def _ratio(context: Context) -> Fraction | None:
    """The ratio of observed to expected bytes, if it is the same simple ratio on every server and in every phase."""
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
