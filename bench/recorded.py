"""Reads recorded outputs: what served outputs and control outputs of a real run differed by from their forcings.

A file is JSON, compressed with xz, and is one run in which every output was teacher-forced:

model, kind, concurrency   what ran; ``kind`` is ``none``, or says how some of the transferred KV was damaged
control                    the outputs of the control arm
served                     the outputs of the load, each with ``damaged``: whether its KV was in truth damaged

An output has the arrays of :class:`harness.verify.judging.forcing.Forced`, one value a token, in nats. ``null`` stands
where a server did not report a log-probability. A regret is always known: of a token without a runner-up it is 0.
"""

import json
import lzma
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats

_ARRAYS = ("regret", "drift", "margin_error", "margin")
_SIGNED = {"margin"}
_OUTPUTS = "*.json.xz"
_WITNESSES = "witness-*.jsonl.xz"
"""What P and D said about first tokens. No output was forced, so that the rule has nothing to say about them."""


class UnreadableError(Exception):
    """A file that is not a recorded run. The message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded run."""

    path: Path
    model: str
    kind: str
    concurrency: int
    control: tuple[Forced, ...]
    served: tuple[Forced, ...]
    damaged: tuple[bool, ...]
    """Of each served output: whether its KV was damaged."""

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        return self.path.name.removesuffix(".xz").removesuffix(".json")

    @property
    def clean(self) -> bool:
        """Whether no output was damaged. The truth of each output tells it, whatever the run's kind is called."""
        return not any(self.damaged)

    def outputs(self, *, damaged: bool) -> list[Forced]:
        """The served outputs that were damaged, or those that were not."""
        return [one for one, truth in zip(self.served, self.damaged, strict=True) if truth is damaged]


def files_of(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The files of recorded runs and those of witnesses, each once, in the order of ``paths``, folders included."""
    found = dict.fromkeys(file for path in paths for file in _files(path))
    witnesses = [file for file in found if file.match(_WITNESSES)]
    runs = [file for file in found if file not in witnesses]
    if not runs:
        raise UnreadableError(f"no recorded run is named: no file {_OUTPUTS}, and no other file that is not a witness")
    return runs, witnesses


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted({*path.glob(_OUTPUTS), *path.glob(_WITNESSES)})
    else:
        yield path


def read(path: Path) -> Recorded:
    """The recorded run in a file. Raises ``UnreadableError``."""
    content = _content(path)
    if not isinstance(content, dict):
        _refuse(path, "it holds no JSON object")
    kinds = {"model": str, "kind": str, "concurrency": int, "control": list, "served": list}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            _refuse(path, f"it has no {key!r}" if key not in content else f"its {key!r} is no {kind.__name__}")
    served = content["served"]
    if not served:
        _refuse(path, "it has no served output")
    return Recorded(
        path,
        *(content[key] for key in ("model", "kind", "concurrency")),
        control=tuple(_outputs(path, "control", content["control"])),
        served=tuple(_outputs(path, "served", served)),
        damaged=tuple(_damaged(path, served)),
    )


def _content(path: Path) -> Any:
    try:
        with lzma.open(path) as file:
            return json.loads(file.read(), parse_constant=lambda name: _refuse(path, f"it has the number {name}"))
    except OSError as error:
        _refuse(path, f"it cannot be read: {error.strerror or error}")
    except (lzma.LZMAError, EOFError) as error:
        _refuse(path, f"it is not a whole xz file: {error}")
    # A RecursionError is what thousands of open brackets lead to.
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is not JSON: {error}")


def _outputs(path: Path, side: str, outputs: Sequence[Any]) -> Iterator[Forced]:
    for index, output in enumerate(outputs):
        where = f"{side} output {index}"
        if not isinstance(output, dict):
            _refuse(path, f"{where} is no JSON object")
        for name in _ARRAYS:
            if not isinstance(output.get(name), list):
                _refuse(path, f"{where} has no array {name!r}")
        lengths = {name: len(output[name]) for name in _ARRAYS}
        if len(set(lengths.values())) > 1:
            _refuse(path, f"{where} has arrays of different lengths: {_listed(lengths)}")
        if not output["regret"]:
            _refuse(path, f"{where} has no tokens")
        yield Forced(**{name: _array(path, where, name, output[name]) for name in _ARRAYS})


def _listed(lengths: dict[str, int]) -> str:
    return ", ".join(f"{name} {length}" for name, length in lengths.items())


def _array(path: Path, where: str, name: str, values: Sequence[Any]) -> Floats:
    for value in values:
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known and (value is not None or name == "regret"):
            _refuse(path, f"{where} has the {name} {json.dumps(value)}, which is no number")
        if known and not (abs(value) <= sys.float_info.max and (value >= 0 or name in _SIGNED)):
            _refuse(path, f"{where} has the {name} {value}: it must be finite and not negative")
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _damaged(path: Path, served: Sequence[Any]) -> Iterator[bool]:
    for index, output in enumerate(served):
        truth = output.get("damaged")
        if not isinstance(truth, bool):
            _refuse(path, f"served output {index} does not say with true or false whether it is 'damaged'")
        yield truth


def _refuse(path: Path, why: str) -> NoReturn:
    raise UnreadableError(f"{path}: {why}")
