"""The generation defaults with which servers fill absent fields of a request: the model's or the operator's. Pure.

vLLM fills absent fields from ``--override-generation-config``, and from the model's ``generation_config.json`` unless
it is launched with ``--generation-config vllm``. Most defaults are neutral or matter only for sampling; those listed
here change a greedy answer, and some make it depend on more than the prompt's tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.preflight.item import Item, Level
from harness.preflight.server_report import ServerReport

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
"""Fields that change a greedy answer, and the values with which they do not."""


def check_generation_defaults(
    reports: Sequence[ServerReport], model_defaults: Mapping[str, Any] | None, output_tokens: int
) -> Iterator[Item]:
    """``model_defaults``: the model's ``generation_config.json``, None if it cannot be read here."""
    found = [item for report in reports for item in _findings(report, model_defaults or {}, output_tokens)]
    if found:
        yield from {str(item): item for item in found}.values()
    elif all(report.generation is None for report in reports) and model_defaults is None:
        yield Item("defaults", Level.UNREPORTED, "The generation defaults of the servers and the model are not known")
    else:
        yield Item("defaults", Level.OK, "No generation default of the servers or the model changes a greedy answer")


def _findings(report: ServerReport, model_defaults: Mapping[str, Any], output_tokens: int) -> Iterator[Item]:
    defaults = {} if report.generation_source not in (None, "auto") else dict(model_defaults)
    defaults |= report.generation or {}
    changing = {
        name: defaults[name] for name, neutral in _NEUTRAL.items() if name in defaults and defaults[name] not in neutral
    }
    longest = changing.pop("max_new_tokens", None)
    if isinstance(longest, int) and longest < output_tokens:
        yield Item(
            "defaults",
            Level.STOPS,
            f"{report.name} limits answers to {longest:,} tokens (max_new_tokens in its generation defaults), but the "
            f"load asks for {output_tokens:,}",
            "Ask for fewer tokens with --random-output-len, or launch the server with --generation-config vllm",
        )
    if changing:
        listed = ", ".join(f"{name}={value}" for name, value in changing.items())
        yield Item(
            "defaults",
            Level.WARNS,
            f"The generation defaults of {report.name} change greedy answers: {listed}",
            "Launch all servers with --generation-config vllm to get the answers of the model itself, and with the "
            "same defaults in any case",
        )
