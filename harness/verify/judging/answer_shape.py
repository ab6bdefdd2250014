"""Whether an answer has the number of choices and tokens that were requested. Log-probabilities do not show this."""

from harness.history import Choice, Operation
from harness.scenario import Sampling
from harness.verify.judging.partial import is_partial


def wrong_shape(operation: Operation) -> str:
    """What is wrong with the shape of an answer, in words; empty if nothing is."""
    sampling, ended = operation.request.sampling, operation.ended
    if is_partial(operation):
        return _too_long(operation) or _wrong_prompt(operation)
    if wrong := next(filter(None, (_wrong_length(choice, sampling) for choice in ended.choices)), ""):
        return wrong
    if len(ended.choices) != (sampling.n or 1):
        return f"it has {len(ended.choices)} choices, and {sampling.n or 1} were requested"
    return _wrong_prompt(operation)


def _too_long(operation: Operation) -> str:
    longest, most = max(map(_tokens, operation.ended.choices), default=0), operation.request.sampling.max_tokens
    return f"it has {longest} tokens, and at most {most} were requested" if longest > most else ""


def _tokens(choice: Choice) -> int:
    return len(choice.token_ids)


def _wrong_prompt(operation: Operation) -> str:
    sent, reported = operation.prompt_token_ids, operation.ended.prompt_token_ids
    if reported is not None and reported != sent:
        return f"the server received another prompt than was sent: {len(reported)} tokens, not {len(sent or ())}"
    return ""


def _wrong_length(choice: Choice, sampling: Sampling) -> str:
    tokens, reason, most = len(choice.token_ids), choice.finish_reason, sampling.max_tokens
    if tokens > most:
        return f"it has {tokens} tokens, and at most {most} were requested"
    if reason == "stop" and sampling.ignore_eos and not sampling.stop:
        return f"it stopped after {tokens} of {most} tokens, although ignore_eos was set"
    if sampling.min_tokens and tokens < sampling.min_tokens:
        return f"it has {tokens} tokens, and at least {sampling.min_tokens} were requested"
    if reason == "length" and tokens < most:
        return f"it ended with finish_reason 'length' after {tokens} of {most} requested tokens"
    return ""
