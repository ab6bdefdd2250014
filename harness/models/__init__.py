"""Makes canary checkpoints from a seed, and reads a model's KV cache geometry from its configuration."""

from harness.models.canary import make_canary
from harness.models.geometry import ModelFacts, read_config, read_model

__all__ = ["ModelFacts", "make_canary", "read_config", "read_model"]
