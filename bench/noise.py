"""Does the rule for outputs hold on recorded noise? Applies the code that judges runs to recorded runs. No server.

    python -m bench.noise FILE_OR_FOLDER... --runs 1000 --jitter

bench/recorded.py describes the files. For each file it prints what the rule accuses: clean outputs, of which it must
accuse none, and damaged ones, of which it should name as many as noise allows. Damage may be harmless (a block that is
computed again anyway), and files do not say which is. So it also prints how many damaged outputs drift no more than
the clean output of the same model that drifts most: an aid for readers, which enters no verdict.

Then it draws runs without damage from the clean outputs of each model, and counts those in which an output is accused
(bench/resampled.py). ``--runs`` of them are spread over runs of 128 to 2,000 outputs with 32 to 192 controls.

Exit code 1 if a clean output of a file is accused, or if alarms exceed the stated rate beyond chance, for a model or
for all together; 2 if a file cannot be read or written; 3 if the rule judged a file not at all, or no run of a model;
0 otherwise.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.alarms import Alarms, exceeding, total
from bench.recorded import Recorded, UnreadableError, files_of, read
from bench.resampled import Resampled, pools, resample
from harness.errors import ExitCode
from harness.verify.judging.forcing import Forced
from harness.verify.judging.limits import ALPHA
from harness.verify.judging.ruling import Ruling, rule_on

_JITTER = 0.1
"""Makes the largest of a thousand drawn copies of an output a third larger than the output was."""


def judge(controls: Sequence[Forced], served: Sequence[Forced]) -> Ruling | str:
    """Judge a run, as verification does before it asks for anything more."""
    return rule_on(controls, served)


@dataclass(frozen=True, slots=True)
class Judged:
    """A recorded run and what the rule says about it."""

    run: Recorded
    ruling: Ruling | str
    loudest_clean: float
    """The largest root mean square drift of a clean output of the same model, nats."""

    def _of(self, found: Mapping[int, str], *, damaged: bool) -> dict[int, str]:
        return {index: why for index, why in sorted(found.items()) if self.run.damaged[index] is damaged}

    def wrong(self, *, damaged: bool) -> dict[int, str]:
        """The accused outputs that were damaged, or those that were not, each with the reason."""
        return self._of(self.ruling.wrong, damaged=damaged) if isinstance(self.ruling, Ruling) else {}

    def doubtful(self, *, damaged: bool) -> dict[int, str]:
        """The doubtful outputs likewise."""
        return self._of(self.ruling.doubtful, damaged=damaged) if isinstance(self.ruling, Ruling) else {}

    def numbers(self) -> dict[str, Any]:
        """The counts of the file."""
        damaged = self.run.outputs(damaged=True)
        return {
            "outputs": len(self.run.served),
            "controls": len(self.run.control),
            "clean_accused": len(self.wrong(damaged=False)),
            "clean_doubtful": len(self.doubtful(damaged=False)),
            "damaged": len(damaged),
            "damaged_named": len(self.wrong(damaged=True)),
            "damaged_doubtful": len(self.doubtful(damaged=True)),
            "damaged_like_clean": sum(root_mean_square(one) <= self.loudest_clean for one in damaged),
        }

    def as_json(self) -> dict[str, Any]:
        """The counts, with the reasons for what was accused wrongly."""
        return {
            "file": self.run.name,
            "model": self.run.model,
            "kind": self.run.kind,
            "concurrency": self.run.concurrency,
            **self.numbers(),
            "unjudged_because": self.ruling if isinstance(self.ruling, str) else None,
            "clean_accused_because": {str(i): why for i, why in self.wrong(damaged=False).items()},
        }


def root_mean_square(one: Forced) -> float:
    """The root mean square drift of an output over the tokens whose drift is known, nats; infinite if none is."""
    known = one.drift[np.isfinite(one.drift)]
    return float(np.sqrt((known**2).mean())) if len(known) else float("inf")


def judge_files(runs: Sequence[Recorded]) -> Iterator[Judged]:
    """Judge each recorded run by itself."""
    loudest: dict[str, float] = defaultdict(float)
    for run in runs:
        drifts = [root_mean_square(one) for one in run.outputs(damaged=False)]
        loudest[run.model] = max(loudest[run.model], *(drift for drift in drifts if np.isfinite(drift)), 0.0)
    for run in runs:
        yield Judged(run, judge(run.control, run.served), loudest[run.model])


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the rule says; returns the exit code."""
    flags = _parse(argv)
    try:
        files, witnesses = files_of(flags.paths)
        runs = [read(file) for file in files]
        if flags.json:
            flags.json.touch()
    except (UnreadableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USAGE
    for file in witnesses:
        print(f"{file.name}: skipped: it has first tokens as both servers saw them, and no forced output")
    judged = []
    for row in judge_files(runs):
        judged.append(row)
        _print_file(row, verbose=flags.verbose, first=len(judged) == 1)
    resampled = _resampled(flags, runs)
    if flags.json:
        content = {"alpha": ALPHA, "files": [one.as_json() for one in judged]}
        content["resampled"] = [one.as_json() for one in resampled]
        flags.json.write_text(json.dumps(content, indent=1) + "\n")
    return exit_code(judged, resampled)


def _resampled(flags: argparse.Namespace, runs: Sequence[Recorded]) -> list[Resampled]:
    if not flags.runs:
        return []
    found = pools(runs, all_clean=flags.all_clean, controls_from_served=flags.controls == "served")
    for model in sorted({run.model for run in runs} - set(found)):
        print(f"{model}: no runs are drawn: no file without damage has outputs and controls (see --all-clean)")
    resampled = []
    for one in resample(judge, found, flags.runs, flags.seed, [0.0, flags.sigma] if flags.jitter else [0.0]):
        resampled.append(one)
        print(*("", *one.lines()), sep="\n", flush=True)
    if len(resampled) > 1:
        print(f"\nall resampled runs: {total(one.total for one in resampled)}")
    print(*exceeding(_totals(resampled)), sep="\n")
    return resampled


def _totals(resampled: Sequence[Resampled]) -> dict[str, Alarms]:
    return {one.name: one.total for one in resampled}


def exit_code(judged: Sequence[Judged], resampled: Sequence[Resampled]) -> ExitCode:
    """The exit code, as the module says."""
    if any(one.wrong(damaged=False) for one in judged) or exceeding(_totals(resampled)):
        return ExitCode.INVALID
    if any(isinstance(one.ruling, str) for one in judged) or any(not one.total.judged for one in resampled):
        return ExitCode.UNKNOWN
    return ExitCode.VALID


_HEADINGS = ("outputs", "controls", "accused", "doubtful", "damaged", "named", "doubtful", "like clean*")


def _print_file(one: Judged, *, verbose: bool, first: bool) -> None:
    if first:
        print(
            "Clean outputs: accused, doubtful. Damaged outputs: how many, named, doubtful, and as an aid *how many of"
        )
        print("them drift no more than the clean output of the same model that drifts most (root mean square).")
        print(f"{'':26}" + "".join(f"{heading:>12}" for heading in _HEADINGS))
    print(f"{one.run.name:26}" + "".join(f"{number:>12,}" for number in one.numbers().values()), flush=True)
    if isinstance(one.ruling, str):
        print(f"  not judged: {one.ruling}")
    for index, why in one.wrong(damaged=False).items() if verbose else ():
        print(f"  clean output {index} is accused: {why}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.noise", description=__doc__, formatter_class=form)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--runs", type=_count, default=1000, help="runs to draw for each model (default: 1000)")
    parser.add_argument("--seed", type=_count, default=0)
    parser.add_argument("--jitter", action="store_true", help="draw as many runs again, with jitter")
    parser.add_argument("--sigma", type=float, default=_JITTER, help="size of the jitter (default: %(default)s)")
    parser.add_argument("--all-clean", action="store_true", help="draw from clean outputs of files with damage, too")
    parser.add_argument(
        "--controls", choices=("control", "served"), default="control", help="draw control arms from these outputs"
    )
    parser.add_argument("--verbose", action="store_true", help="name each accused clean output with the reason")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


if __name__ == "__main__":
    sys.exit(main())
