"""The flags of the load: how many requests, when they are sent, and what their prompts are."""

import argparse
from pathlib import Path

from harness.cli.flag import Flags
from harness.cli.flag import value as _value
from harness.cli.numbers import natural, percent, positive, ratio, seconds, span
from harness.cli.timing_values import burstiness, objectives, rate, stages, sweep_rates, think_time
from harness.verify.asking.policy import DEFAULT as DEFAULT_POLICY

DATASETS = ("random", "natural", "prefix_repetition", "sharegpt", "custom", "trace")


def add_load_flags(parser: argparse.ArgumentParser) -> None:
    """All flags of the load, in three groups."""
    _add_size_flags(parser.add_argument_group("load"))
    _add_arrival_flags(parser.add_argument_group("when requests are sent (default: --concurrency in flight)"))
    _add_dataset_flags(parser.add_argument_group("prompts"))


def _add_size_flags(group: Flags) -> None:
    text = "requests in flight, or sessions (default: 32; no limit if requests are sent at a rate)"
    _value(group, "--concurrency", "N", text, positive, None, "--max-concurrency")
    text = "processes that send the load (default: 1, or one on each node with --ray)"
    _value(group, "--workers", "N", text, positive)
    text = "send the load from a Ray cluster: HOST:PORT, or auto on one of its nodes"
    _value(group, "--ray", "ADDRESS", text)
    _value(group, "--num-prompts", "N", "requests (default: 128, or all of a custom dataset or trace)", positive)
    text = (
        "send for so many seconds, and no longer; --num-prompts then limits the requests (default: 100 for each second)"
    )
    _value(group, "--duration-sec", "S", text, seconds)
    text = "seed of prompts and arrivals, and of the choice of outputs to verify (default: 0)"
    _value(group, "--seed", "N", text, natural, 0)
    text = "which latencies a request must keep, in ms: ttft:MS, tpot:MS, e2el:MS; result: requests per second that do"
    group.add_argument("--goodput", nargs="+", metavar="METRIC:MS", type=objectives, default=[], help=text)
    _value(
        group,
        "--verify",
        "all|sample:N|budget:PCT%|budget:60s",
        "which outputs are verified: all, N of them, as many as PCT percent of the load's tokens and 2.5 times that "
        "share of its time suffice for (a short load has more), or as many as a time suffices for (60s, 2m; default: "
        "%(default)s)",
        default=DEFAULT_POLICY,
    )
    text = "keep the measured noise in this file; it is measured again after a day"
    _value(group, "--noise-floor", "FILE", text, Path)


def _add_arrival_flags(group: Flags) -> None:
    _value(group, "--request-rate", "R", "send R requests per second, however many are in flight (inf: no rate)", rate)
    text = "1: Poisson arrivals; below: bursts; above: more even arrivals; inf: equal intervals (default: 1)"
    _value(group, "--burstiness", "B", text, burstiness, 1.0)
    text = "let the rate rise or fall from the first request to the last"
    group.add_argument("--ramp-up-strategy", choices=["linear", "exponential"], help=text)
    _value(group, "--ramp-up-start-rps", "R", "requests per second at the beginning of the ramp", rate)
    _value(group, "--ramp-up-end-rps", "R", "requests per second at its end", rate)
    text = "one rate after another, each for some time, as in 5:30s,20:1m (rate 0: a pause)"
    _value(group, "--stages", "RATE:TIME,...", text, stages)
    text = "turns of a session: each continues the turn before (default: 1, no sessions)"
    _value(group, "--session-turns", "N", text, positive, 1)
    text = "seconds between the end of a turn and the next: a number, or the smallest and the largest (default: 0)"
    _value(group, "--think-time", "S|LO:HI", text, think_time, (0.0, 0.0))
    text = "runs at several rates: those of the list, or (without one) a search for the highest that keeps --goodput"
    group.add_argument("--sweep", nargs="?", const=(), metavar="R,R,...", type=sweep_rates, help=text)
    text = "a rate keeps --goodput if so many percent of its requests do (default: %(default)g)"
    _value(group, "--sweep-goal", "PCT", text, percent, 90.0)
    text = "without --num-prompts, how long each rate is sent, in seconds (default: %(default)g)"
    _value(group, "--sweep-duration-sec", "S", text, seconds, 20.0)


def _add_dataset_flags(group: Flags) -> None:
    text = f"{', '.join(DATASETS)} (default: custom if --dataset-path is given, else random)"
    group.add_argument("--dataset-name", choices=DATASETS, metavar="NAME", help=text)
    _value(group, "--dataset-path", "FILE", "the file of sharegpt (JSON), custom or trace (JSONL)", Path)
    text = "tokens of a prompt, random or natural: a number, or the smallest and the largest (default: 20:400)"
    _value(group, "--random-input-len", "N|LO:HI", text, span, None, "--input-len")
    text = "tokens of an answer to random and natural prompts (random: also LO:HI; default: 20)"
    _value(group, "--random-output-len", "N", text, span, None, "--output-len")
    text = "draw random lengths within this share of the given ones: 0.1 for 10 percent more or less"
    _value(group, "--random-range-ratio", "SHARE", text, ratio)
    _value(group, "--random-prefix-len", "N", "tokens with which all random prompts begin (default: 0)", natural, 0)
    prefixes: dict[str, tuple[str, int]] = {
        "prefix-len": ("tokens of a prefix", 256),
        "suffix-len": ("tokens after the prefix", 256),
        "num-prefixes": ("prefixes", 10),
        "output-len": ("tokens of an answer", 128),
    }
    for name, (meaning, default) in prefixes.items():
        text = f"prefix_repetition: {meaning} (default: {default})"
        _value(group, f"--prefix-repetition-{name}", "N", text, positive, default)
    text = "tokens of an answer, for lines of a custom dataset without output_tokens"
    _value(group, "--custom-output-len", "N", text, positive)
    text = "tokens of an answer (default: as many as the answer in the file has)"
    _value(group, "--sharegpt-output-len", "N", text, positive)
    _value(group, "--trace-block-size", "N", "tokens for which a hash id stands (default: 512)", positive, 512)
    _value(group, "--trace-speedup", "X", "send a trace X times as fast as it was (default: 1)", seconds, 1.0)
    group.add_argument("--ignore-eos", action="store_true", help="let each answer reach its full length")
