"""What differs between vLLM's releases, as far as its counters go.

A development build's version tells nothing: ``0.1.dev18+g5e1a1a8`` may be built from any commit. Where the release is
not known, every question here is answered with None, and the prediction admits both.
"""

_Release = tuple[int, int]
_PRECISE_SOURCES: _Release = (0, 20)
_PRECISE_LOOKUPS: _Release = (0, 26)
_READ_FOR_LOGPROBS, _SKIPPED_FOR_LOGPROBS = (0, 26), (0, 31)


def release(version: str | None) -> _Release | None:
    """Major and minor; None where the version names no release."""
    numbers = (version or "").split(".")[:2]
    if "dev" in (version or "") or len(numbers) != 2 or not all(one.isascii() and one.isdigit() for one in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def counts_the_last_token_again(version: str | None) -> bool | None:
    """Whether a prompt that is brought whole counts one token as computed too: the one that is sampled from.

    So before 0.20, whose PromptTokenStats adds ``prompt_len - num_cached_tokens`` to local_compute.
    """
    known = release(version)
    return None if known is None else known < _PRECISE_SOURCES


def counts_retried_lookups(version: str | None) -> bool | None:
    """Whether a request that waits for room or for its KV is looked up, and counted, more than once: before 0.26."""
    known = release(version)
    return None if known is None else known < _PRECISE_LOOKUPS


def brings_prompts_for_logprobs(version: str | None) -> bool | None:
    """Whether connectors bring a prompt whose log-probabilities are asked: up to 0.26 (seen), not from 0.31 (read)."""
    known = release(version)
    if known is None or _READ_FOR_LOGPROBS < known < _SKIPPED_FOR_LOGPROBS:
        return None
    return known <= _READ_FOR_LOGPROBS
