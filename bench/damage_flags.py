"""The damage bench's flags, and the runs that they ask for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.damage_row import CLEAN, MIXED
from bench.sabotage import KINDS, MORE_KINDS

_ALL = (*KINDS, *MORE_KINDS)
_RUNS_OF_A_SEED = 100
"""Each run has a seed of its own, so that it meets prompts that no earlier run has left in a cache."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run to be made."""

    name: str
    kinds: tuple[str, ...]
    """They take turns; empty: a clean run."""
    seed: int


def plan(options: argparse.Namespace) -> list[Planned]:
    """The runs: for each seed each kind, or all kinds in one run, and a clean run if asked for."""
    chosen: list[tuple[str, tuple[str, ...]]] = [(kind, (kind,)) for kind in options.kinds]
    if options.mixed and options.kinds:
        chosen = [(MIXED, options.kinds)]
    if options.clean:
        chosen.append((CLEAN, ()))
    return [
        Planned(name, kinds, seed * _RUNS_OF_A_SEED + number)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for number, (name, kinds) in enumerate(chosen)
    ]


def parse(description: str | None, argv: Sequence[str]) -> argparse.Namespace:
    """The options. ``words`` are those after ``--``."""
    at = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m bench.damage", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("damage"), help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=2000, help="of each run (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--one-in", type=int, default=200, metavar="N", help="damage 1 of N (default: %(default)s)")
    parser.add_argument("--kinds", type=_kinds, default=KINDS, help=f"all, none, or some of {_named(_ALL)}")
    parser.add_argument("--seeds", type=int, default=5, help="repeat everything with so many seeds (default: 5)")
    parser.add_argument("--first-seed", type=int, default=1, help="of these seeds (default: 1)")
    parser.add_argument("--mixed", action="store_true", help="all kinds in one run, in turn")
    parser.add_argument("--clean", action="store_true", help="also a run without damage for each seed")
    parser.add_argument("--verify", metavar="POLICY", help="the harness's --verify (default: its own default)")
    parser.add_argument("--limit-sec", type=float, default=3600, help="interrupt a run after this (default: 3600)")
    parser.add_argument("--launch", default="", metavar="FLAGS", help="flags of `harness serve`, in one word")
    parser.add_argument("--base-url", help="attach: the proxy (default: the harness's own)")
    parser.add_argument("--prefill-url", action="append", default=[], help="attach: repeatable")
    parser.add_argument("--decode-url", action="append", default=[], help="attach: repeatable")
    parser.add_argument("--state-file", type=Path, help="attach: the file that `harness serve --state-file` wrote")
    parser.add_argument("--sabotage", type=Path, metavar="DIR", help="where the plugin reads its orders")
    parser.add_argument("--environment", action="store_true", help="only print the decode server's environment")
    parser.add_argument("--title", default="Damage on a real pair", help="of the page")
    parser.add_argument("--commit", default="", help="named on the page where there is no git")
    options = parser.parse_args(argv[:at], argparse.Namespace(words=list(argv[at + 1 :])))
    if not plan(options):
        parser.error("--kinds none without --clean leaves nothing to run")
    if options.state_file and not options.state_file.exists() and not options.environment:
        parser.error(f"--state-file {options.state_file}: there is no such file; harness serve writes it once ready")
    if (options.state_file or options.decode_url) and options.sabotage is None:
        parser.error("--sabotage DIR is needed to attach: the directory in the decode server's environment")
    return options


def _named(kinds: Sequence[str]) -> str:
    return ",".join(kinds)


def _kinds(text: str) -> tuple[str, ...]:
    kinds: tuple[str, ...] = {"all": KINDS, "none": ()}.get(text, tuple(text.split(",")))
    if unknown := [kind for kind in kinds if kind not in _ALL]:
        raise argparse.ArgumentTypeError(f"no kind is called {_named(unknown)}; there are {_named(_ALL)}")
    return kinds
