"""What servers add to a request that does not say: the model's or the operator's generation defaults. Pure.

vLLM fills fields that a request leaves out from the model's ``generation_config.json``, unless it is launched with
``--generation-config vllm``, and from ``--override-generation-config``. Most are neutral, or only matter where tokens
are drawn; these change a greedy answer, and some make it depend on more than the prompt's tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.preflight.item import Item, Level
from harness.preflight.told import Told

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "repetition_penalty": (None, 1, 1.0),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "no_repeat_ngram_size": (None, 0),
    "logit_bias": (None, {}),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "min_tokens": (None, 0),
    "max_new_tokens": (None,),
}
"""Fields that change a greedy answer, and what leaves it alone."""


def generation_defaults(
    told: Sequence[Told], from_file: Mapping[str, Any] | None, output_tokens: int
) -> Iterator[Item]:
    """``from_file``: the model's ``generation_config.json`` where it can be read here, else None."""
    found = [item for one in told for item in _of(one, from_file or {}, output_tokens)]
    if found:
        yield from {str(item): item for item in found}.values()
    elif all(one.generation is None for one in told) and from_file is None:
        yield Item("defaults", Level.UNTOLD, "Neither servers nor model tell what a request that does not say is given")
    else:
        yield Item("defaults", Level.OK, "no default of servers or model changes a greedy answer")


def _of(one: Told, from_file: Mapping[str, Any], output_tokens: int) -> Iterator[Item]:
    filled = {} if one.generation_source not in (None, "auto") else dict(from_file)
    filled |= one.generation or {}
    changing = {
        name: filled[name] for name, neutral in _NEUTRAL.items() if name in filled and filled[name] not in neutral
    }
    shortest = changing.pop("max_new_tokens", None)
    if isinstance(shortest, int) and shortest < output_tokens:
        yield Item(
            "defaults",
            Level.STOPS,
            f"{one.name} answers with {shortest:,} tokens at most (max_new_tokens of its generation defaults), and the "
            f"load asks for {output_tokens:,}",
            "Ask for less with --random-output-len, or launch it with --generation-config vllm",
        )
    if changing:
        listed = ", ".join(f"{name}={value}" for name, value in changing.items())
        yield Item(
            "defaults",
            Level.WARNS,
            f"{one.name} fills in {listed} where a request does not say, which changes greedy answers",
            "Launch all servers alike, with --generation-config vllm, if answers are to be the plain model's",
        )
