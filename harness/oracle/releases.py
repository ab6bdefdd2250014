"""Differences between vLLM releases that affect counters.

The version of a development build does not identify its code: ``0.1.dev18+g5e1a1a8`` may be built from any commit.
If the release is not known, every function here returns None, and the prediction admits both answers.
"""

_Release = tuple[int, int]
_PRECISE_SOURCES: _Release = (0, 20)
_PRECISE_LOOKUPS: _Release = (0, 26)
_READ_FOR_LOGPROBS, _SKIPPED_FOR_LOGPROBS = (0, 26), (0, 31)


def release(version: str | None) -> _Release | None:
    """Major and minor version; None if the version names no release."""
    numbers = (version or "").split(".")[:2]
    if "dev" in (version or "") or len(numbers) != 2 or not all(one.isascii() and one.isdigit() for one in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def counts_the_last_token_again(version: str | None) -> bool | None:
    """Whether one token of a prompt that is brought whole, the one sampled from, also counts as computed.

    True before 0.20, whose PromptTokenStats adds ``prompt_len - num_cached_tokens`` to local_compute.
    """
    known = release(version)
    return None if known is None else known < _PRECISE_SOURCES


def counts_retried_lookups(version: str | None) -> bool | None:
    """Whether each repeated lookup of a request that waits for room or for its KV is counted. True before 0.26."""
    known = release(version)
    return None if known is None else known < _PRECISE_LOOKUPS


def brings_prompts_for_logprobs(version: str | None) -> bool | None:
    """Whether connectors bring prompts of requests with prompt_logprobs: up to 0.26 (seen), not from 0.31 (read)."""
    known = release(version)
    if known is None or _READ_FOR_LOGPROBS < known < _SKIPPED_FOR_LOGPROBS:
        return None
    return known <= _READ_FOR_LOGPROBS
