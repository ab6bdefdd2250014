"""Advice on counters that could not be judged."""

from collections.abc import Iterator

from harness.checkers.advice.context import ENDED_EARLY, Context
from harness.checkers.advice.readings import unsettled, unusable
from harness.checkers.evidence import was_served
from harness.checkers.gathering import gather
from harness.verdict import Advice

UNLISTED = Advice(
    "the proxy also uses servers that are not listed",
    "name every server behind the proxy with --prefill-url and --decode-url",
)


def of_unknown_counters(context: Context) -> Advice:
    """Advice on the most likely reason why a check of counters is unknown."""
    if not context.problems() and not was_served(context.history):
        return ENDED_EARLY if context.history.ended_early else Advice("no request completed", "see completion")
    missing = Advice("the servers do not report a fact or a counter that this check needs", "see the reason above")
    return next(_reasons(context), missing)


def _reasons(context: Context) -> Iterator[Advice]:
    evidence = gather(context.deployment, context.history)
    if any(one.leftover and not one.others for one in evidence) and any(one.explained for one in context.problems()):
        yield Advice(
            "an earlier run had the same prompts, and cache salts, which keep runs apart, are dropped or ignored",
            "use a --seed that no earlier run on this deployment had",
        )
    if any(one.elsewhere for one in evidence) and any(one.explained for one in context.problems()):
        yield UNLISTED
    if any(one.explained is not None and one.observed is not None for one in context.problems()):
        yield Advice(
            "other people's requests reach the same servers (a health probe, another client, a second harness), or a "
            "gateway sends some requests twice",
            "turn off retries and mirroring in the gateway, and run when nobody else uses the servers, or on a "
            "deployment that the harness launches",
        )
    yield from unusable(context)
    if context.history.ended_early:
        yield ENDED_EARLY
    yield from unsettled(context)
    if unknown := context.deployment.unknown_connectors():
        names = " and ".join(dict.fromkeys(name for each in unknown.values() for name in each))
        yield Advice(f"the harness does not know the connector {names}", "rely on the check `outputs` for it")
    if silent := [server.name for server in context.deployment.servers if server.block_size is None]:
        yield Advice(
            f"{silent[0]} does not report its block size",
            "start it with VLLM_SERVER_DEV_MODE=1, or with a frontend whose /metrics has vllm:cache_config_info",
        )
    if absent := [one for one in context.problems() if one.observed is None]:
        yield Advice(
            f"/metrics of {absent[0].server} lacks a counter that this check needs, or has an impossible value for it",
            "see the reason above, and whether something between the client and the server drops lines of /metrics",
        )
    if any(server.engines > 1 for server in context.deployment.servers):
        yield Advice(
            "there are several data-parallel engines behind one URL, each with its own caches",
            "give each engine its own URL, so that cache hits can be predicted exactly",
        )
    if context.deployment.geometry is None:
        yield Advice(
            "the bytes of the model's KV cache cannot be predicted",
            "give the served model with --model, if its KV cache is of one kind in all layers, and the type of its KV "
            "with --kv-cache-dtype",
        )
