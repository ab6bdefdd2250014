"""A noise floor kept for later runs: what a control arm showed, and of which deployment.

Noise is the deployment's: its model, engine, kernels and batches. A floor measured on another, or at another
concurrency, says nothing, and is refused.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.facts import Deployment, Server, alike
from harness.history import NoiseMeasured, NoisyOutput
from harness.store.atomic import write_atomically
from harness.store.codec import MalformedError, decode, dumps

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class NoiseFile:
    """What such a file holds."""

    deployment: Mapping[str, str]
    """What noise depends on, by name (:func:`noise_key`)."""
    wall: float
    """When it was measured: seconds since 1970."""
    outputs: tuple[NoisyOutput, ...]


def noise_key(deployment: Deployment, concurrency: int) -> dict[str, str]:
    """What two runs must have in common to share a noise floor."""
    servers = deployment.servers
    return {
        "model": deployment.model_path or deployment.model,
        "engine": " ".join([deployment.engine, *(f"{one.role} {one.version}" for one in servers)]),
        "kv dtype": alike(one.kv_dtype for one in servers),
        "device": str(deployment.device),
        "connectors": alike(map(_connectors, servers)),
        "block sizes": ", ".join(str(one.block_size) for one in servers),
        "ranks": ", ".join(str(one.ranks) for one in servers),
        "concurrency": str(concurrency),
    }


def _connectors(server: Server) -> str:
    return ", ".join((*(server.connectors or ()), *server.unknown_connectors))


def read_noise(path: Path, key: Mapping[str, str], at: float) -> NoiseMeasured:
    """What the file says of noise, for a history.

    Raises:
        UsageError: it cannot be read, or is of another deployment.

    """
    try:
        stored = decode(NoiseFile, json.loads(path.read_text()))
    except (OSError, ValueError, MalformedError) as error:
        raise UsageError(f"--noise-floor {path} cannot be read: {error}. Remove it to have it measured anew.") from None
    if different := [
        f"{name}: {stored.deployment.get(name)} there, {mine} here"
        for name, mine in key.items()
        if stored.deployment.get(name) != mine
    ]:
        raise UsageError(
            f"--noise-floor {path} was measured on another deployment ({'; '.join(different)}). Noise is a "
            "deployment's own: name another file, and this run will measure it and write it there."
        )
    age = (time.time() - stored.wall) / _DAY
    origin = f"{path.name}: {len(stored.outputs):,} control outputs, measured {age:.1f} days ago"
    return NoiseMeasured(at, origin, stored.outputs)


def write_noise(path: Path, key: Mapping[str, str], outputs: Sequence[NoisyOutput]) -> None:
    """Keep what this run's control arm showed."""
    write_atomically(path, dumps(NoiseFile(key, time.time(), tuple(outputs))))
