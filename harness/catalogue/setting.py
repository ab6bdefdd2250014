"""The sizes and limits of a deployment, with which scenarios are written."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.facts import Deployment, Role, Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything that a workload's scenario depends on. None: not known."""

    prefill_block_size: int
    """Tokens."""
    decode_block_size: int
    """Tokens."""
    vocab_size: int
    special_token_ids: tuple[int, ...] = ()
    """Tokens that prompts do not contain."""
    max_model_len: int = 2048
    """Tokens of prompt and answer together that every server accepts."""
    prefill_blocks: int | None = None
    """Blocks in the smallest pool of a prefill server."""
    decode_blocks: int | None = None
    tier_blocks: int | None = None
    """Blocks that the smallest offload tier holds."""
    batch_tokens: int | None = None
    """Tokens per engine step, of the server with the smallest steps."""
    prefill: int = 1
    """Prefill servers."""
    decode: int = 1
    """Decode servers."""
    seed: int = 0
    """The same seed gives the same prompts."""
    salt: str | None = None
    """New for each run against a deployment that outlives the run: so no run finds an earlier run's blocks."""

    @property
    def block(self) -> int:
        """The larger block size: its multiples are block boundaries on all servers if one size divides the other."""
        return max(self.prefill_block_size, self.decode_block_size)

    @classmethod
    def of(cls, deployment: Deployment, *, seed: int = 0, salt: str | None = None) -> "Setting":
        """The setting of a deployment; UsageError if a fact is missing without which no scenario can be written."""
        prefill, decode = deployment.of(Role.PREFILL), deployment.of(Role.DECODE)
        vocab_size = deployment.vocab_size
        if vocab_size is None:
            raise UsageError(
                f"The vocabulary size is not known: the configuration of the servers' model, {deployment.model_path}, "
                "cannot be read here, and the servers do not tokenize (POST /tokenize). Give --model: a directory with "
                "the model's config.json, or a hub name in the local cache."
            )
        return cls(
            prefill_block_size=_block_size(prefill),
            decode_block_size=_block_size(decode),
            vocab_size=vocab_size,
            special_token_ids=deployment.special_token_ids,
            max_model_len=_least(server.max_model_len for server in deployment.servers) or 2048,
            prefill_blocks=_least(server.num_blocks for server in prefill),
            decode_blocks=_least(server.num_blocks for server in decode),
            tier_blocks=_least(tier_blocks(deployment, server) for server in deployment.servers),
            batch_tokens=_least(server.max_num_batched_tokens for server in deployment.servers),
            prefill=len(prefill),
            decode=len(decode),
            seed=seed,
            salt=salt,
        )


def tier_blocks(deployment: Deployment, server: Server) -> int | None:
    """Blocks that the server's offload tier holds; None if that is not known."""
    chunk, block, chunks = server.offload_block_size, server.block_size, deployment.offload_blocks_of(server)
    return None if chunk is None or block is None or chunks is None else chunks * chunk // block


def _block_size(servers: tuple[Server, ...]) -> int:
    sizes = [server.block_size for server in servers if server.block_size is not None]
    if not sizes:
        raise UsageError(
            "The servers do not report their KV block size (vllm:cache_config_info in /metrics), on which every "
            "workload depends. Check that there is a prefill and a decode server, and that the engine is vLLM."
        )
    return max(sizes)


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
