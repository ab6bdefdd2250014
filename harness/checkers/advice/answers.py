"""Advice on outputs that are wrong or could not be verified."""

from collections.abc import Sequence

from harness.checkers.advice.context import INTERRUPTED, Context, plural
from harness.history import Operation, Outcome
from harness.verdict import Advice, FindingKind, Verdict

_SHRINK = "reduce it with `python -m harness shrink RUN_DIR`, and report what remains"


_LEAKED = Advice(
    "decode read blocks that by then held another request's KV: read after the lease had ended or after blocks were "
    "given to another request, or a wrong list of block ids",
    f"serve nobody with it; compare kv_lease_duration with the longest wait of a request; {_SHRINK}",
)
_EXCHANGED = Advice(
    "something between here and the servers gives one request's answer to another (a proxy that mixes up connections, "
    "a cache of answers with too short a key)",
    "serve nobody with it; ask the harness's own proxy (leave --base-url out) to see that the servers are right",
)


def of_outputs(context: Context) -> Advice:
    """By what the findings are about."""
    return _of_wrong(context) if context.invalid else _of_unverified(context)


def _of_wrong(context: Context) -> Advice:
    if leaked := context.requests(FindingKind.LEAK):
        known = [one for one in context.load() if one.request.request_id in leaked]
        return _EXCHANGED if known and all(map(_of_another_prompt, known)) else _LEAKED
    wrong = context.requests(FindingKind.WRONG_OUTPUT)
    if not wrong and context.requests(FindingKind.CACHE):
        return Advice(
            "a transfer or a restore put blocks into a cache under another block's hash; later prompts that share the "
            "prefix are answered from it",
            f"empty the caches before serving anybody; {_SHRINK}",
        )
    if context.is_bad("failed_transfers"):
        return Advice(
            "a transfer failed and the request was answered all the same, from blocks that were never filled",
            "set kv_load_failure_policy to fail, and find why the transfer failed in the decode server's log",
        )
    these = [one for one in context.load() if one.request.request_id in wrong]
    if changed := _of_changed_requests(these):
        return changed
    if unlike := _unlike(context):
        return Advice(f"prefill and decode differ in {unlike}", "launch both with the same, or expect no right answers")
    where = context.common_server(these)
    return Advice(
        "the KV that decode computed with is not the prompt's: a connector that copies wrong, stale or misplaced blocks"
        f" ({plural(len(wrong), 'wrong output')}{where})",
        _SHRINK,
    )


def _of_changed_requests(wrong: Sequence[Operation]) -> Advice | None:
    """Of requests that reached the servers otherwise than they were sent; None where not all of them did."""
    if wrong and all(map(_cut_short, wrong)):
        return Advice(
            "answers end for their length before what was asked: something between here and the servers drops or "
            f"lowers max_tokens, or the servers have a limit of their own ({plural(len(wrong), 'answer')})",
            "let max_tokens pass, look for max_new_tokens in the generation defaults, or ask for less with "
            "--random-output-len",
        )
    if wrong and all(map(_of_another_prompt, wrong)):
        return Advice(
            "the server was given other prompt tokens than were sent: something between here and the servers rewrites "
            f"prompts ({plural(len(wrong), 'answer')})",
            "let token ids pass unchanged, or ask the harness's own proxy (leave --base-url out)",
        )
    return None


def _cut_short(operation: Operation) -> bool:
    asked = operation.request.sampling.max_tokens
    return any(one.finish_reason == "length" and len(one.token_ids) < asked for one in operation.ended.choices)


def _of_another_prompt(operation: Operation) -> bool:
    told = operation.ended.prompt_token_ids
    return told is not None and told != operation.prompt_token_ids


def _unlike(context: Context) -> str:
    """A fact in which servers differ that KV does not survive."""
    for name, words in (("kv_dtype", "the type of their KV cache"), ("model_path", "the model that they load")):
        values = {getattr(server, name) for server in context.deployment.servers} - {None}
        if len(values) > 1:
            return words
    return ""


def _of_unverified(context: Context) -> Advice:
    answered = [one for one in context.load() if one.outcome is Outcome.OK]
    if not answered:
        return INTERRUPTED if context.history.ended_early else Advice("no request completed", "see completion")
    if not any(choice.token_ids for one in answered for choice in one.ended.choices):
        return Advice(
            "something between the servers and here drops return_token_ids, so that answers carry no token ids",
            "let it pass that field, or ask the harness's own proxy (leave --base-url out)",
        )
    salts = context.other("salts")
    if salts is not None and salts.verdict is not Verdict.VALID:
        return Advice("cache salts do not isolate requests here, so that nothing clean can be asked", "see salts")
    if context.history.ended_early:
        return INTERRUPTED
    return Advice(
        "teacher forcing or the control requests did not complete, or servers do not agree with themselves",
        "see the finding; penalties in --extra-body, a busy deployment and a server that refuses prompt_logprobs are "
        "common reasons; --reference-url names another server to force on",
    )


SALTS = Advice(
    "a gateway drops cache_salt, or a tier or server does not make it part of a block's identity",
    "ask the servers directly under two salts; do not let tenants share such a deployment",
)
