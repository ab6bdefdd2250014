"""How large an answer can be at most, by what its request asked for. Pure.

A server that sends for ever, or a gigabyte instead of ten tokens, must cost the client neither its memory nor the rest
of the time limit. The limits are wide: they are there to end what is no answer, not to judge one.
"""

from harness.scenario import Request, Sampling

LARGEST_ANSWER = 1 << 30
"""Bytes of any answer. The log-probabilities of a prompt of 500,000 tokens are not larger."""
LARGEST_REFUSAL = 1 << 16
"""Bytes that are read of an answer with another status than 200, of which a line is quoted."""
_BASE = 16 << 20
"""Bytes that any answer may have: comments that keep the connection open, a gateway's own fields."""
_STEP = 1 << 20
_EVENT = 4096
"""Bytes of one token's event without log-probabilities: ids, the model's path, a tool call."""
_ENTRY = 2048
"""Bytes of one log-probability; a token's text may be repeated in it as a list of its bytes."""
_TOKENS_PER_CHARACTER = 4
_TEMPLATE = 4096
"""Tokens that a chat template may add for each message."""


def most_bytes(request: Request) -> int:
    """The most bytes that an answer to this request can have, its HTTP framing aside."""
    sampling = request.sampling
    outputs = sampling.max_tokens * (sampling.n or 1) * (_EVENT + _entries(sampling.logprobs) * _ENTRY)
    prompt = _prompt_tokens(request) * (_ENTRY // 64 + _prompt_entries(sampling) * _ENTRY)
    # In whole steps, so that requests of about one size have the same limit, and the same error.
    return min((_BASE + outputs + prompt + _STEP - 1) // _STEP * _STEP, LARGEST_ANSWER)


def _entries(logprobs: int | None) -> int:
    """Log-probabilities of one token; a negative number asks for the whole vocabulary."""
    if logprobs is None:
        return 0
    return logprobs + 1 if logprobs >= 0 else LARGEST_ANSWER


def _prompt_entries(sampling: Sampling) -> int:
    echoed = _entries(sampling.logprobs) + 1 if sampling.echo else 0
    return max(_entries(sampling.prompt_logprobs), echoed)


def _prompt_tokens(request: Request) -> int:
    prompt = request.prompt
    if isinstance(prompt, str):
        return len(prompt) * _TOKENS_PER_CHARACTER + _TEMPLATE
    counts = (1 if isinstance(one, int) else len(one.content) * _TOKENS_PER_CHARACTER + _TEMPLATE for one in prompt)
    return sum(counts)
