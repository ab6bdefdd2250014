"""Checks a request's JSON as vLLM's API server does, and turns it into sequences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.scenario import Endpoint
from harness.sim.config import SimConfig
from harness.sim.noise import RequestNoise
from harness.sim.prefix_cache import root_hash
from harness.sim.sequence import SamplingParams, Sequence
from harness.sim.words import Tokenizer

Json = Mapping[str, Any]


class Refused(Exception):  # noqa: N818 - reads as what happened
    """The request is refused; carries vLLM's status, message and parameter name."""

    def __init__(self, message: str, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param = status, param

    def body(self) -> dict[str, Any]:
        """Build the answer's error object."""
        kind = {400: "BadRequestError", 404: "NotFoundError"}.get(self.status, "InternalServerError")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request whose fields have been checked."""

    endpoint: Endpoint
    request_id: str
    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingParams
    n: int
    stream: bool
    include_usage: bool
    return_token_ids: bool
    tokens_as_ids: bool
    echo: bool
    salt: str | None
    params: Json | None

    @property
    def chat(self) -> bool:
        """Whether the request came to the chat endpoint."""
        return self.endpoint is Endpoint.CHAT

    @property
    def _side(self) -> str:
        """What tells P's part of a request from D's, which has the same id: each server has noise of its own."""
        return "/prefill" if self.params and self.params.get("do_remote_decode") else ""

    def sequences(self, config: SimConfig, serial: int, server: str = "") -> list[Sequence]:
        """Build n sequences per prompt on a server, each with its own copy of the ``kv_transfer_params``."""
        prefix = "chatcmpl" if self.chat else "cmpl"
        return [
            Sequence(
                f"{child}_{prefix}-{self.request_id}-{index}-{serial:08x}"
                if self.n > 1
                else f"{prefix}-{self.request_id}-{index}-{serial:08x}",
                self.request_id,
                prompt,
                self.sampling,
                RequestNoise.of(
                    config.noise,
                    config.seed,
                    f"{self.request_id}/{index}/{child}{self._side}",
                    config.sim_noise,
                    server,
                ),
                root_hash(None if config.ignores_salt else self.salt),
                dict(self.params) if self.params else None,
            )
            for index, prompt in enumerate(self.prompts)
            for child in range(self.n)
        ]


def parse_request(endpoint: Endpoint, body: Json, request_id: str, config: SimConfig, tokenizer: Tokenizer) -> Parsed:
    """Check a request's body; raises Refused with the status and message that vLLM would answer."""
    if body.get("model") not in (None, config.model):
        raise Refused(f"The model `{body['model']}` does not exist.", 404, "model")
    chat = endpoint is Endpoint.CHAT
    prompts = _chat_prompt(body, tokenizer) if chat else _prompts(body, tokenizer)
    stream = bool(body.get("stream"))
    options = body.get("stream_options") or {}
    if options and not stream:
        raise Refused("Stream options can only be defined when `stream=True`.", param="stream_options")
    echo = bool(body.get("echo"))
    sampling = _sampling(body, chat=chat, echo=echo, room=_room(prompts, config))
    if stream and sampling.prompt_logprobs and not echo:
        raise Refused("`prompt_logprobs` are not available when `stream=True`.", param="prompt_logprobs")
    longest = max(map(len, prompts))
    if longest + sampling.max_tokens > config.max_model_len:
        raise Refused(
            f"This model's maximum context length is {config.max_model_len} tokens. However, you requested "
            f"{sampling.max_tokens} output tokens and your prompt contains {longest} input tokens."
        )
    salt = body.get("cache_salt")
    if salt is not None and (not isinstance(salt, str) or not salt):
        raise Refused("`cache_salt` must be a non-empty string.", param="cache_salt")
    params = body.get("kv_transfer_params")
    if params is not None and not isinstance(params, dict):
        raise Refused("Input should be a valid dictionary.", param="kv_transfer_params")
    return Parsed(
        endpoint,
        request_id,
        tuple(prompts),
        sampling,
        int(body.get("n") or 1),
        stream,
        bool(options.get("include_usage")),
        bool(body.get("return_token_ids")),
        bool(body.get("return_tokens_as_token_ids")),
        echo,
        salt,
        params,
    )


def _room(prompts: list[tuple[int, ...]], config: SimConfig) -> int:
    longest = max(map(len, prompts))
    if longest >= config.max_model_len:
        raise Refused(
            f"This model's maximum context length is {config.max_model_len} tokens. However, your prompt "
            f"contains {longest} input tokens."
        )
    return config.max_model_len - longest


def _sampling(body: Json, *, chat: bool, echo: bool, room: int) -> SamplingParams:
    logprobs = body.get("logprobs")
    if chat:
        logprobs = int(body.get("top_logprobs") or 0) if logprobs else None
    prompt_logprobs = body.get("prompt_logprobs")
    for name, value in (("logprobs", logprobs), ("prompt_logprobs", prompt_logprobs)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise Refused(f"`{name}` must be a positive value or -1.", param=name)
    max_tokens = _max_tokens(body, chat=chat, room=room)
    if max_tokens < 1 and not (echo and max_tokens == 0):
        raise Refused(f"max_tokens must be at least 1, got {max_tokens}.", param="max_tokens")
    minimum = int(body.get("min_tokens") or 0)
    if minimum > max_tokens:
        raise Refused(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {minimum}.")
    stop = body.get("stop") or ()
    return SamplingParams(
        max(max_tokens, 1),
        minimum,
        bool(body.get("ignore_eos")),
        (stop,) if isinstance(stop, str) else tuple(stop),
        tuple(body.get("stop_token_ids") or ()),
        logprobs,
        prompt_logprobs if prompt_logprobs is not None or not echo else logprobs,
    )


def _max_tokens(body: Json, *, chat: bool, room: int) -> int:
    names = ("max_completion_tokens", "max_tokens") if chat else ("max_tokens",)
    for name in names:
        if body.get(name) is not None:
            return int(body[name])
    return room if chat else min(16, room)


def _prompts(body: Json, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    prompt = body.get("prompt")
    if prompt is None or prompt in ("", []):
        raise Refused("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    several = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    return [_prompt(one, tokenizer) for one in several]


def _prompt(prompt: object, tokenizer: Tokenizer) -> tuple[int, ...]:
    tokens = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, int) for token in tokens):
        raise Refused("A prompt must be text or a list of token ids.", param="prompt")
    if max(tokens) >= tokenizer.vocab_size or min(tokens) < 0:
        raise Refused(f"Token id {max(tokens)} is out of vocabulary.", param="prompt")
    return tuple(tokens)


def _chat_prompt(body: Json, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("`messages` must be a non-empty list.", param="messages")
    return [tuple(tokenizer.encode_chat(messages))]
