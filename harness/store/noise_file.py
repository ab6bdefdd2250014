"""Noise kept for later runs: what control arms showed, when, and of which deployment.

Noise is the deployment's: its model, engine, kernels and batches. Noise measured on another, or at another
concurrency, says nothing, and is refused. It also changes with time (drivers, clocks, neighbours), so what was kept
ages: the arms of several runs stand in a file with their dates, at most ``MOST_OUTPUTS`` outputs of them, none older
than ``KEPT``. A run that finds an arm younger than ``FRESH`` measures none itself and is judged by all that are there;
any other run measures its own, and adds it if its outputs were right.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.facts import Deployment, Server, alike
from harness.history import NoiseMeasured, NoisyOutput
from harness.store.atomic import write_atomically
from harness.store.codec import MalformedError, decode, dumps

_DAY = 86_400.0
FRESH = _DAY
"""Seconds after which a run measures the noise again."""
KEPT = 30 * _DAY
"""Seconds after which an arm is dropped."""
MOST_OUTPUTS = 1024
"""Control outputs kept; the newest."""
_FORMAT = 2
# 1 had no such field, and held whatever the first run had measured, right or wrong.


@dataclass(frozen=True, slots=True)
class Arm:
    """One run's control arm."""

    wall: float
    """When it was measured: seconds since 1970."""
    outputs: tuple[NoisyOutput, ...]


@dataclass(frozen=True, slots=True)
class NoiseFile:
    """What such a file holds."""

    format: int
    deployment: Mapping[str, str]
    """What noise depends on, by name (:func:`noise_key`)."""
    arms: tuple[Arm, ...]
    """The oldest first."""


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


def read_noise(path: Path, key: Mapping[str, str], at: float, *, now: float | None = None) -> NoiseMeasured | None:
    """What the file says of noise, for a history; None where there is none, or none that is fresh.

    ``at``: the history's clock; ``now``: seconds since 1970.

    Raises:
        UsageError: it cannot be read, or is of another deployment.

    """
    if not path.exists():
        return None
    stored, now = _read(path, key), _wall(now)
    arms = [arm for arm in stored.arms if 0 <= now - arm.wall < KEPT]
    if not arms or now - arms[-1].wall >= FRESH:
        return None
    outputs = tuple(output for arm in arms for output in arm.outputs)
    runs = f" of {len(arms)} runs" if len(arms) > 1 else ""
    age = (now - arms[-1].wall) / _DAY
    return NoiseMeasured(
        at, f"{path.name}: {len(outputs):,} control outputs{runs}, measured {age:.1f} days ago", outputs
    )


def add_noise(path: Path, key: Mapping[str, str], outputs: Sequence[NoisyOutput], *, now: float | None = None) -> None:
    """Keep what a run's control arm showed, beside what is there; the oldest make room.

    Raises:
        UsageError: the file that is there cannot be read, or is of another deployment; it is left as it is.
        OSError: it cannot be written.

    """
    now = _wall(now)
    earlier = _read(path, key).arms if path.exists() else ()
    kept: list[Arm] = []
    room = MOST_OUTPUTS
    for arm in (Arm(now, tuple(outputs)), *reversed(earlier)):
        if room and 0 <= now - arm.wall < KEPT:
            kept.append(replace(arm, outputs=arm.outputs[:room]))
            room -= len(kept[-1].outputs)
    write_atomically(path, dumps(NoiseFile(_FORMAT, key, tuple(reversed(kept)))))


def _wall(now: float | None) -> float:
    return time.time() if now is None else now


def _read(path: Path, key: Mapping[str, str]) -> NoiseFile:
    if path.is_dir():
        raise UsageError(f"--noise-floor {path} is a directory. Name a file in it: the run writes it.")
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "deployment" in content and content.get("format") != _FORMAT:
            raise UsageError(
                f"--noise-floor {path} was written by another version of the harness (format "
                f"{content.get('format', 1)}, this one reads {_FORMAT}). Remove it to have the noise measured anew."
            )
        stored = decode(NoiseFile, content)
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
    return stored
