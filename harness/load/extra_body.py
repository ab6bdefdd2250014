"""``--extra-body``: fields that the user adds to every request, references and probes included. Pure.

    a field of the run's own (the prompt, how much is generated, what is told of it)    refused: it would not be the run
                                                                                        any more that is recorded
    a sampling field that every request carries with a neutral value                    obeyed
    any other field                                                                     obeyed

Some sampling fields make a server choose other tokens than those that it finds best. They are obeyed and said
(``shifts``): teacher forcing tells what is best, and has nothing to say about such answers.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from harness.errors import UsageError

NEUTRAL: Mapping[str, Any] = MappingProxyType(
    {
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
    }
)
"""vLLM's own values for "none". Where a request is silent, vLLM takes those of the model's generation_config.json."""

_OTHERWISE = {
    **dict.fromkeys(("model",), "give --model, or --served-model-name"),
    **dict.fromkeys(("prompt", "messages"), "give a load of your own with --dataset-path"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "give --random-output-len, or output_tokens in a dataset"),
    "ignore_eos": "give --ignore-eos",
    **dict.fromkeys(
        ("min_tokens", "stop", "temperature", "seed"),
        "give it in the lines of a dataset (--dataset-path), where it is recorded",
    ),
}
_OWN = (
    *("stream", "stream_options", "n", "best_of", "use_beam_search", "echo", "suffix", "stop_token_ids"),
    *("logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids"),
    *("logprob_token_ids", "cache_salt", "kv_transfer_params", "request_id", "truncate_prompt_tokens"),
    *("prompt_embeds", "add_special_tokens", "continue_final_message", "include_stop_str_in_output", "detokenize"),
)
"""What verifying rests on, and no flag sets."""
_SHIFTING = (
    *("logit_bias", "bad_words", "allowed_token_ids", "structured_outputs", "response_format", "logits_processors"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "vllm_xargs", "thinking_token_budget"),
)
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def checked(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The same. Raises UsageError where it would set a field of the run's own."""
    for name in extra:
        if name in _OTHERWISE or name in _OWN:
            remedy = _OTHERWISE.get(name, "leave it out")
            raise UsageError(f"--extra-body sets {name}, which the run sets itself and judges by: {remedy}.")
    return dict(extra)


def shifts(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of fields by which a server chooses other tokens than the best."""
    return tuple(_shifting(extra))


def _shifting(extra: Mapping[str, Any]) -> Iterator[str]:
    for name, value in extra.items():
        if (name in _PENALTIES and value not in (None, NEUTRAL[name])) or (name in _SHIFTING and value):
            yield name
