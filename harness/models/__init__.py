"""Canary checkpoints made from a seed, and what a model's configuration says about its KV cache."""

from harness.models.canary import make_canary
from harness.models.geometry import ModelFacts, read_config, read_model

__all__ = ["ModelFacts", "make_canary", "read_config", "read_model"]
