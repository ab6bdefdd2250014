"""What a load needs of the servers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request needs, or the largest of many requests."""

    source: str
    """Where the request comes from, as the user knows it: ``load.jsonl, line 7``, ``--random-input-len 20:400``."""
    prompt_tokens: int | None
    """None: a text, whose tokens are not known before it is sent."""
    output_tokens: int
    largest_token: int | None = None
    """The largest of the prompt's token ids; None if ids are chosen within the vocabulary, or not known."""
