"""Noise that control requests measured, kept in a file for later runs of the same deployment.

Noise depends on the deployment's model, engine, kernels and batches, so a file from another deployment or concurrency
is refused. It also changes with time (drivers, clocks, other users of the machine). The file holds the measurements of
several runs with their dates: at most ``MOST_OUTPUTS`` outputs, none older than ``KEPT``. If a measurement is younger
than ``FRESH``, a run uses all measurements and makes none. Otherwise the run measures its own noise, and adds it to the
file if the run's outputs were right.
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
from harness.store.codec import decode, dumps
from harness.store.readers import MalformedError

_DAY = 86_400.0
FRESH = _DAY
"""Seconds after which a run measures the noise again."""
KEPT = 30 * _DAY
"""Seconds after which a measurement is dropped."""
MOST_OUTPUTS = 1024
"""Control outputs kept: the newest ones."""
_FORMAT = 2
"""Format 1 had no field ``format``, and kept the noise of the first run even if its outputs were wrong."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The noise that one run measured."""

    wall: float
    """Time of the measurement: seconds since 1970."""
    outputs: tuple[NoisyOutput, ...]


@dataclass(frozen=True, slots=True)
class NoiseFile:
    """The content of the file."""

    format: int
    deployment: Mapping[str, str]
    """Everything that noise depends on, by name (:func:`noise_key`)."""
    measurements: tuple[Measurement, ...]
    """The oldest first."""


def noise_key(deployment: Deployment, concurrency: int | str) -> dict[str, str]:
    """The values that two runs must have in common to share a noise floor."""
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
    """The noise in the file, as an entry for a history; None if there is no file, or no fresh measurement in it.

    ``at``: time on the history's clock; ``now``: seconds since 1970.

    Raises:
        UsageError: the file cannot be read, or is of another deployment.

    """
    if not path.exists():
        return None
    stored, now = _read(path, key), time.time() if now is None else now
    kept = [one for one in stored.measurements if 0 <= now - one.wall < KEPT]
    if not kept or now - kept[-1].wall >= FRESH:
        return None
    outputs = tuple(output for one in kept for output in one.outputs)
    runs = f" of {len(kept)} runs" if len(kept) > 1 else ""
    age = (now - kept[-1].wall) / _DAY
    return NoiseMeasured(
        at, f"{path.name}: {len(outputs):,} control outputs{runs}, measured {age:.1f} days ago", outputs
    )


def add_noise(path: Path, key: Mapping[str, str], outputs: Sequence[NoisyOutput], *, now: float | None = None) -> None:
    """Add a run's measurement to the file; the oldest outputs are dropped if there are too many.

    Raises:
        UsageError: the existing file cannot be read, or is of another deployment; it is not changed.
        OSError: the file cannot be written.

    """
    now = time.time() if now is None else now
    earlier = _read(path, key).measurements if path.exists() else ()
    kept: list[Measurement] = []
    room = MOST_OUTPUTS
    for one in (Measurement(now, tuple(outputs)), *reversed(earlier)):
        if room and 0 <= now - one.wall < KEPT:
            kept.append(replace(one, outputs=one.outputs[:room]))
            room -= len(kept[-1].outputs)
    write_atomically(path, dumps(NoiseFile(_FORMAT, key, tuple(reversed(kept)))))


def _read(path: Path, key: Mapping[str, str]) -> NoiseFile:
    if path.is_dir():
        raise UsageError(f"--noise-floor {path} is a directory. Name a file in it, which the run will write.")
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and "deployment" in content and content.get("format") != _FORMAT:
            raise UsageError(
                f"--noise-floor {path} was written by another version of the harness (format "
                f"{content.get('format', 1)}, this one reads {_FORMAT}). Remove the file to measure the noise again."
            )
        if isinstance(content, dict) and "arms" in content:
            # Earlier versions called the measurements arms.
            content["measurements"] = content.pop("arms")
        stored = decode(NoiseFile, content)
    except (OSError, ValueError, MalformedError) as error:
        why = f"--noise-floor {path} cannot be read: {error}. Remove the file to measure the noise again."
        raise UsageError(why) from None
    if different := [
        f"{name}: {stored.deployment.get(name)} there, {mine} here"
        for name, mine in key.items()
        if stored.deployment.get(name) != mine
    ]:
        raise UsageError(
            f"--noise-floor {path} was measured on another deployment ({'; '.join(different)}), whose noise may "
            "differ. Name another file: this run will measure the noise and write it there."
        )
    return stored
