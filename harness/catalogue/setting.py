"""What a deployment offers to whoever writes a scenario for it: sizes, limits and names, as plain numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything that a scenario's literals depend on. None: not known."""

    prefill_block_size: int
    """Tokens."""
    decode_block_size: int
    """Tokens."""
    vocab_size: int
    special_token_ids: tuple[int, ...] = ()
    """Left out of prompts."""
    max_model_len: int = 2048
    """Tokens of prompt and answer together that every server takes."""
    prefill_blocks: int | None = None
    """Blocks in a prefill server's pool."""
    decode_blocks: int | None = None
    chunk_tokens: int | None = None
    """Tokens per chunk of the offload tier."""
    batch_tokens: int | None = None
    """Tokens of one engine step, of the server that takes least."""
    prefill: int = 1
    """Prefill servers."""
    decode: int = 1
    """Decode servers."""
    seed: int = 0
    """The same seed asks the same prompts."""
    salt: str | None = None
    """New for each run against a deployment that outlives it: it keeps a run from the caches of the run before."""

    @property
    def block(self) -> int:
        """The larger block size: a multiple of it ends a block on every server, if one size divides the other."""
        return max(self.prefill_block_size, self.decode_block_size)

    @classmethod
    def of(cls, deployment: Deployment, *, seed: int = 0, salt: str | None = None) -> "Setting":
        """What is known of the deployment; UsageError where a scenario cannot be written without what is not."""
        prefill, decode = deployment.of(Role.PREFILL), deployment.of(Role.DECODE)
        vocab_size = deployment.vocab_size
        if vocab_size is None:
            raise UsageError(
                f"The configuration of the model that the servers name, {deployment.model_path}, cannot be read here, "
                "and they do not tokenize (POST /tokenize), so no prompt can be written. Give --model: a directory "
                "with the model's config.json, or a hub name in the local cache."
            )
        return cls(
            prefill_block_size=_block_size(prefill),
            decode_block_size=_block_size(decode),
            vocab_size=vocab_size,
            special_token_ids=deployment.special_token_ids,
            max_model_len=_least(server.max_model_len for server in deployment.servers) or 2048,
            prefill_blocks=_least(server.num_blocks for server in prefill),
            decode_blocks=_least(server.num_blocks for server in decode),
            chunk_tokens=_most(server.offload_block_size for server in deployment.servers),
            batch_tokens=_least(server.max_num_batched_tokens for server in deployment.servers),
            prefill=len(prefill),
            decode=len(decode),
            seed=seed,
            salt=salt,
        )


def _block_size(servers: tuple[Server, ...]) -> int:
    sizes = [server.block_size for server in servers if server.block_size is not None]
    if not sizes:
        raise UsageError(
            "The servers do not say how many tokens their KV blocks hold (vllm:cache_config_info in /metrics), and "
            "every case is written in blocks. Is there a prefill and a decode server, and is the engine vLLM?"
        )
    return max(sizes)


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
