"""``--extra-body``: fields that the user adds to every request, references and probes included. Pure.

Fields that the run sets itself (the prompt, output lengths, what the answer contains) are refused, since the history
would then record another request than was sent. All other fields are sent, and replace the neutral sampling fields.

Some fields make a server choose other tokens than the most probable ones. They are sent and reported (``shifts``):
teacher forcing finds the most probable tokens, and cannot verify such answers.
"""

from collections.abc import Mapping
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
"""vLLM's values for "off". vLLM fills an absent field from the model's generation_config.json."""

_REMEDIES = {
    "model": "give --model, or --served-model-name",
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
"""Fields that verification depends on and that no flag sets."""
_SHIFTING = (
    *("logit_bias", "bad_words", "allowed_token_ids", "structured_outputs", "response_format", "logits_processors"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "vllm_xargs", "thinking_token_budget"),
)
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def checked(extra: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the fields. Raises UsageError for a field that the run sets itself."""
    for name in extra:
        if name in _REMEDIES or name in _OWN:
            remedy = _REMEDIES.get(name, "leave it out")
            raise UsageError(f"--extra-body sets {name}, which the run sets itself for its verdict: {remedy}.")
    return dict(extra)


def shifts(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields that make a server choose other tokens than the most probable ones."""
    return tuple(
        name
        for name, value in extra.items()
        if (name in _PENALTIES and value not in (None, NEUTRAL[name])) or (name in _SHIFTING and value)
    )
