"""Advice on outputs that are wrong or could not be verified."""

from collections.abc import Sequence

from harness.checkers.advice.context import ENDED_EARLY, Context, plural
from harness.history import Operation, Outcome
from harness.verdict import Advice, FindingKind, Verdict

_SHRINK = "find the smallest failing load with `python -m harness shrink RUN_DIR`, and report it"

_LEAKED = Advice(
    "decode read blocks that held another request's KV: they were read after the lease had ended or after the blocks "
    "had been given to another request, or the list of block ids was wrong",
    f"do not serve users with this deployment; compare kv_lease_duration with the longest wait of a request; {_SHRINK}",
)
_EXCHANGED = Advice(
    "something between the client and the servers returns one request's answer to another (a proxy that mixes up "
    "connections, or a cache of answers with too short a key)",
    "do not serve users with this deployment; use the harness's own proxy (leave out --base-url) to see whether the "
    "servers are right",
)


def of_outputs(context: Context) -> Advice:
    """Advice on outputs, by the kinds of their findings."""
    return _of_wrong(context) if context.invalid else _of_unverified(context)


def _of_wrong(context: Context) -> Advice:
    if leaked := context.requests(FindingKind.LEAK):
        known = [one for one in context.load() if one.request.request_id in leaked]
        return _EXCHANGED if known and all(map(_of_another_prompt, known)) else _LEAKED
    wrong = context.requests(FindingKind.WRONG_OUTPUT)
    if not wrong and context.requests(FindingKind.CACHE):
        return Advice(
            "a transfer or a load from the offload tier put blocks into a cache under another block's hash; later "
            "prompts with the same prefix get wrong answers",
            f"empty the caches before you serve users; {_SHRINK}",
        )
    if context.is_bad("failed_transfers"):
        return Advice(
            "a transfer failed, and the request was answered from blocks that were never filled",
            "set kv_load_failure_policy to fail, and look in the decode server's log for why the transfer failed",
        )
    operations = [one for one in context.load() if one.request.request_id in wrong]
    if changed := _of_changed_requests(operations):
        return changed
    if unlike := _unlike(context):
        return Advice(f"prefill and decode differ in {unlike}", "launch both with the same value")
    where = context.common_server(operations)
    return Advice(
        "decode used KV that is not the prompt's: a connector copies wrong, stale or misplaced blocks "
        f"({plural(len(wrong), 'wrong output')}{where})",
        _SHRINK,
    )


def _of_changed_requests(wrong: Sequence[Operation]) -> Advice | None:
    """Advice if all of these requests were changed on their way to the servers; None otherwise."""
    if wrong and all(map(_cut_short, wrong)):
        return Advice(
            "answers end with finish_reason length before max_tokens: something between the client and the servers "
            f"drops or lowers max_tokens, or the servers have a limit of their own ({plural(len(wrong), 'answer')})",
            "make the gateway forward max_tokens, look for max_new_tokens in the servers' generation defaults, or ask "
            "for shorter answers with --random-output-len",
        )
    if wrong and all(map(_of_another_prompt, wrong)):
        return Advice(
            "the server received other prompt tokens than were sent: something between the client and the servers "
            f"rewrites prompts ({plural(len(wrong), 'answer')})",
            "make the gateway forward token ids unchanged, or use the harness's own proxy (leave out --base-url)",
        )
    return None


def _cut_short(operation: Operation) -> bool:
    asked = operation.request.sampling.max_tokens
    return any(one.finish_reason == "length" and len(one.token_ids) < asked for one in operation.ended.choices)


def _of_another_prompt(operation: Operation) -> bool:
    reported = operation.ended.prompt_token_ids
    return reported is not None and reported != operation.prompt_token_ids


def _unlike(context: Context) -> str:
    """A difference between servers that makes their KV incompatible, in words; empty if there is none."""
    for name, words in (("kv_dtype", "the type of their KV cache"), ("model_path", "the model that they load")):
        values = {getattr(server, name) for server in context.deployment.servers} - {None}
        if len(values) > 1:
            return words
    return ""


def _of_unverified(context: Context) -> Advice:
    answered = [one for one in context.load() if one.outcome is Outcome.OK]
    if not answered:
        return ENDED_EARLY if context.history.ended_early else Advice("no request completed", "see completion")
    if not any(choice.token_ids for one in answered for choice in one.ended.choices):
        return Advice(
            "something between the client and the servers drops return_token_ids, so that answers have no token ids",
            "make the gateway forward that field, or use the harness's own proxy (leave out --base-url)",
        )
    salts = context.other("salts")
    if salts is not None and salts.verdict is not Verdict.VALID:
        return Advice("cache salts do not isolate requests here, so that outputs cannot be verified", "see salts")
    if context.history.ended_early:
        return ENDED_EARLY
    return Advice(
        "teacher forcing or the control requests did not complete, or their results are inconsistent",
        "see the finding; common reasons are penalties in --extra-body, a busy deployment, and a server that refuses "
        "prompt_logprobs; --reference-url names another server for teacher forcing",
    )


SALTS = Advice(
    "a gateway drops cache_salt, or a server or offload tier does not include it in block hashes",
    "send a prompt to the servers directly under two salts; do not let tenants share such a deployment",
)
