"""Measures how often the rule for outputs accuses a run that has only noise, and how often it finds damage. No server.

    python -m bench.false_alarms --runs 1000 --kinds student-3 mixture

A run is drawn at random: control outputs, the load's outputs, and the teacher forcing of every token. If an output is
accused, further controls are drawn, of its own prompt and of others, and the run is judged again, as in verification
(three rounds at most). Printed are ``near``: runs in 1,000 without damage in which an output is doubtful or accused at
first; ``alarm``: runs in 1,000 without damage that end invalid, of which one is allowed; ``found``: runs in 100 with
one output served entirely with wrong KV in which this output is accused. Runs are not judged if the rule finds that
their controls do not suffice, and do not count as runs without an alarm.

Exit code 1 if runs of a kind, or of all kinds together, end invalid more often than allowed, beyond chance; else 0.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context

import numpy as np

from bench.alarms import Alarms, exceeding, total
from bench.synthetic import KINDS, Generator, Noise, draw_outputs
from harness.errors import ExitCode
from harness.verify.asking.controls import FURTHER_CONTROLS, REPEATS, SUSPECTS
from harness.verify.asking.plan import ROUNDS_OF_CONFIRMATION
from harness.verify.asking.policy import CONTROL_OUTPUT
from harness.verify.judging.forcing import Forced
from harness.verify.judging.noise import Floats
from harness.verify.judging.ruling import Own, Ruling, rule_on


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one run."""

    requests: int
    controls: int
    tokens: int
    """Tokens of each answer."""


SIZES = (
    *(Size(16, 32, 20), Size(16, 32, 60), Size(64, 80, 1), Size(64, 80, 8), Size(64, 32, 20)),
    *(Size(300, 64, 20), Size(2000, 80, 1), Size(2000, 192, 20)),
)
HUGE = (Size(20_000, 192, 1), Size(20_000, 192, 20))
"""Runs as large as a nightly load."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one run."""

    near: bool
    """Whether an output was doubtful or accused before further controls were drawn."""
    accused: frozenset[int]
    """Indices of the outputs that are judged wrong in the end."""
    judged: bool
    """Whether the controls sufficed for the rule."""


def judge(controls: Sequence[Forced], served: Sequence[Forced], own: Own) -> Ruling | str:
    """Judge a run, as verification does with each round of controls. ``own``: see ``rule_on``."""
    return rule_on(controls, served, own)


def judge_run(rng: Generator, kind: Noise, size: Size, *, damaged: int = 0) -> Trial:
    """Draw a run, and judge it as verification does."""
    length, prompts = max(size.tokens, CONTROL_OUTPUT), kind.prompts(rng, size.requests)

    def repeated(loudness: Floats) -> list[Forced]:
        return draw_outputs(rng, kind, len(loudness), length, loudness=loudness)

    control = repeated(np.resize(prompts, size.controls))
    served = draw_outputs(rng, kind, size.requests, size.tokens, damaged=damaged, loudness=prompts)
    own: dict[int, list[Forced]] = {}
    ruling = judge(control, served, own)
    near = isinstance(ruling, Ruling) and bool(ruling.wrong or ruling.doubtful)
    for _ in range(ROUNDS_OF_CONFIRMATION):
        if isinstance(ruling, str) or not ruling.wrong:
            break
        control += repeated(rng.choice(prompts, FURTHER_CONTROLS))
        asked = [index for index in sorted(ruling.wrong) if index not in own][:SUSPECTS]
        own |= {index: repeated(np.full(REPEATS, prompts[index])) for index in asked}
        ruling = judge(control, served, own)
    if isinstance(ruling, str):
        return Trial(near, frozenset(), judged=False)
    return Trial(near, frozenset(ruling.wrong), judged=True)


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one kind of noise and size."""

    kind: str
    size: Size
    near: int
    alarms: Alarms
    found: int
    damaged: int
    """Runs with damage."""

    def __str__(self) -> str:
        size, runs = self.size, self.alarms.judged + self.alarms.unjudged
        unjudged = f", {self.alarms.unjudged:,} not judged" if self.alarms.unjudged else ""
        return (
            f"{self.kind:16} {size.requests:6} requests {size.controls:4} controls {size.tokens:3} tokens: "
            f"near {1000 * self.near / runs:6.1f}, alarm {1000 * self.alarms.alarms / runs:5.1f} in 1,000 of "
            f"{runs:,} runs{unjudged}; found {100 * self.found / self.damaged:3.0f} in 100 of {self.damaged:,}"
        )


def measure(kind: str, size: Size, runs: int, seed: int) -> Row:
    """Judge ``runs`` runs without damage, and a tenth as many with one damaged output."""
    rng = np.random.default_rng(seed)
    clean = [judge_run(rng, KINDS[kind], size) for _ in range(runs)]
    bad = [judge_run(rng, KINDS[kind], size, damaged=1) for _ in range(max(runs // 10, 1))]
    judged = sum(one.judged for one in clean)
    alarms = Alarms(sum(bool(one.accused) for one in clean), judged, len(clean) - judged)
    return Row(kind, size, sum(one.near for one in clean), alarms, sum(0 in one.accused for one in bad), len(bad))


def _rows(flags: argparse.Namespace, sizes: Sequence[Size]) -> Iterator[Row]:
    """A row for each kind and size, in order. What is drawn does not depend on the number of processes."""
    kinds, each = zip(*product(flags.kinds, sizes), strict=True)
    if flags.processes == 1:
        yield from (measure(kind, size, flags.runs, flags.seed) for kind, size in zip(kinds, each, strict=True))
        return
    with ProcessPoolExecutor(flags.processes, get_context("spawn")) as pool:
        yield from pool.map(measure, kinds, each, [flags.runs] * len(kinds), [flags.seed] * len(kinds))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each kind of noise and size, and totals; returns the exit code."""
    flags = _parse(argv)
    sizes = [size for size in SIZES if size.requests <= flags.most_requests] + (list(HUGE) if flags.huge else [])
    alarms: dict[str, Alarms] = defaultdict(Alarms)
    for row in _rows(flags, sizes):
        alarms[row.kind] += row.alarms
        print(row, flush=True)
    print()
    for kind, one in alarms.items():
        print(f"{kind:16} {one}")
    print(f"{'all together':16} {total(alarms.values())}")
    print(*(exceeded := exceeding(alarms)), sep="\n")
    return ExitCode.INVALID if exceeded else ExitCode.VALID


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.false_alarms", description=__doc__, formatter_class=form)
    parser.add_argument(
        "--runs", type=_positive, default=1000, help="runs without damage per kind and size (default: 1000)"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--most-requests", type=_positive, default=2000, help="skip runs with more requests (default: 2000)"
    )
    parser.add_argument(
        "--huge", action="store_true", help="also judge runs with 20,000 requests, whatever --most-requests"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=_positive, default=1, help="processor cores to use (default: 1)")
    flags = parser.parse_args(argv)
    if flags.most_requests < min(size.requests for size in SIZES) and not flags.huge:
        parser.error(f"no run has so few requests: --most-requests {flags.most_requests}")
    return flags


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


if __name__ == "__main__":
    sys.exit(main())
