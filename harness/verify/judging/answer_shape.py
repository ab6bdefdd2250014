"""An answer that is not of the shape that was asked for; what no token's log-probability shows."""

from harness.history import Operation


def ill_formed(operation: Operation) -> str:
    """What is wrong with it, in words; empty when nothing is."""
    sampling, ended = operation.request.sampling, operation.ended
    if len(ended.choices) != (sampling.n or 1):
        return f"it has {len(ended.choices)} choices, and {sampling.n or 1} were asked"
    sent, told = operation.prompt_token_ids, ended.prompt_token_ids
    if told is not None and told != sent:
        return f"the server was given another prompt than was sent: {len(told)} tokens beside {len(sent or ())}"
    for choice in ended.choices:
        tokens = len(choice.token_ids)
        if choice.finish_reason == "length" and tokens < sampling.max_tokens:
            return f"it ended for its length after {tokens} tokens, and {sampling.max_tokens} were asked"
    return ""
