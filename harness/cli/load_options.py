"""The load that the flags describe."""

import argparse
import math
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import UsageError
from harness.loads import (
    Arrival,
    DatasetLoad,
    Load,
    NaturalLoad,
    PrefixRepetitionLoad,
    Ramp,
    RandomLoad,
    ShareGptLoad,
    Stages,
    Steady,
    TraceLoad,
)

_FROM_FILE = ("sharegpt", "custom", "trace")
_IN_SESSIONS = ("random", "natural", "prefix_repetition", "sharegpt")
_PER_SECOND = 100
"""Requests for each second of ``--duration-sec``: more than a small deployment serves."""
_USUAL_INPUT, _USUAL_OUTPUT = RandomLoad.input_len, 20


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """Runs at several rates, one after another, on one deployment."""

    rates: tuple[float, ...]
    """Requests per second; empty: the highest rate that keeps the objectives is searched."""
    start: float
    """The first rate of the search."""
    goal: float
    """The share of requests that must keep the objectives, above 0 and at most 1."""
    num_prompts: int | None
    """Requests at each rate; None: as many as ``duration`` has."""
    duration: float
    """Seconds for which each rate is sent."""


def load_of(flags: argparse.Namespace) -> Load:
    """The load. Raises UsageError if flags contradict each other."""
    name = _dataset(flags)
    arrival = _arrival(flags)
    _refuse_lengths(flags, name)
    _refuse_sessions(flags, name)
    timing = {
        "concurrency": flags.concurrency,
        "seed": flags.seed,
        "arrival": arrival,
        "turns": flags.session_turns,
        "think_time": flags.think_time,
        "seconds": flags.duration_sec,
    }
    number = arrival.size if arrival is not None and arrival.size is not None else flags.num_prompts
    if number is None and flags.duration_sec is not None and name not in _FROM_FILE:
        number = math.ceil(_PER_SECOND * flags.duration_sec)
    return _MAKERS[name](flags, {"num_prompts": number, **timing})


def sweep_of(flags: argparse.Namespace) -> SweepOptions | None:
    """The rates of a sweep; None without --sweep. Raises UsageError."""
    if flags.sweep is None:
        return None
    if flags.workload or flags.ramp_up_strategy or flags.stages:
        raise UsageError(
            "--sweep sends the load at one rate after another: it cannot be combined with --workload, "
            "--ramp-up-strategy or --stages."
        )
    if flags.noise_floor or flags.result_filename or flags.junit:
        raise UsageError(
            "--sweep makes several runs, each with a directory of its own: leave out --noise-floor, --result-filename "
            "and --junit."
        )
    if not flags.sweep and not flags.goodput:
        raise UsageError(
            "--sweep without a list searches the highest rate that keeps the objectives of --goodput: add for example "
            "--goodput ttft:500 tpot:50, or list the rates, as in --sweep 1,2,4,8."
        )
    start = flags.request_rate if flags.request_rate and math.isfinite(flags.request_rate) else 1.0
    return SweepOptions(flags.sweep, start, flags.sweep_goal / 100, flags.num_prompts, flags.sweep_duration_sec)


def at_rate(load: Load, rate: float, number: int) -> Load:
    """The load of a sweep at one rate; ``number``: its requests. It keeps the burstiness that was asked for."""
    arrival = Steady(rate, load.arrival.burstiness if load.arrival is not None else 1.0)
    return replace(load, arrival=arrival, num_prompts=number)


def _dataset(flags: argparse.Namespace) -> str:
    name = flags.dataset_name or ("random" if flags.dataset_path is None else "custom")
    if (name in _FROM_FILE) != (flags.dataset_path is not None):
        raise UsageError(
            f"--dataset-name {name} needs --dataset-path FILE: name the file."
            if name in _FROM_FILE
            else f"--dataset-name {name} cannot have --dataset-path: leave one of the two flags out."
        )
    if flags.workload and (flags.dataset_name or flags.dataset_path):
        raise UsageError("--dataset-name and --dataset-path cannot be combined with --workload: give one of them.")
    return name


def _arrival(flags: argparse.Namespace) -> Arrival | None:
    rate = flags.request_rate if flags.request_rate is not None and math.isfinite(flags.request_rate) else None
    given = {"--request-rate": rate, "--ramp-up-strategy": flags.ramp_up_strategy, "--stages": flags.stages}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} contradict each other: give one of them.")
    if named and flags.workload:
        raise UsageError(f"{named[0]} is for the plain load, and workloads have timings of their own: leave it out.")
    if flags.burstiness != 1.0 and not named and flags.sweep is None:
        raise UsageError("--burstiness is for requests that are sent at a rate: add --request-rate, or leave it out.")
    if flags.stages is not None and flags.num_prompts is not None:
        raise UsageError("--stages say how many requests there are (rate times seconds): leave --num-prompts out.")
    return _ramp(flags) or (Stages(flags.stages, flags.burstiness) if flags.stages else _steady(rate, flags))


def _steady(rate: float | None, flags: argparse.Namespace) -> Steady | None:
    if rate is None and flags.sweep is not None:
        # Replaced at each rate of the sweep.
        rate = 1.0
    return None if rate is None else Steady(rate, flags.burstiness)


def _ramp(flags: argparse.Namespace) -> Ramp | None:
    parts = flags.ramp_up_strategy, flags.ramp_up_start_rps, flags.ramp_up_end_rps
    if all(part is None for part in parts):
        return None
    if None in parts or math.inf in parts:
        raise UsageError(
            "A ramp needs three flags: --ramp-up-strategy linear|exponential, and --ramp-up-start-rps and "
            "--ramp-up-end-rps, both finite."
        )
    return Ramp(*parts, flags.burstiness)


def _refuse_lengths(flags: argparse.Namespace, name: str) -> None:
    lengths = {
        "--random-input-len": flags.random_input_len,
        "--random-output-len": flags.random_output_len,
        "--random-range-ratio": flags.random_range_ratio,
        "--random-prefix-len": flags.random_prefix_len or None,
    }
    allowed = {"random": tuple(lengths), "natural": tuple(lengths)[:2]}.get(name, ())
    for flag, value in lengths.items():
        if value is not None and flag not in allowed:
            raise UsageError(f"{flag} is not for --dataset-name {name}: leave it out.")
    if name == "natural" and flags.random_output_len and len(set(flags.random_output_len)) > 1:
        raise UsageError("--output-len of natural prompts is one number.")


def _refuse_sessions(flags: argparse.Namespace, name: str) -> None:
    if flags.session_turns > 1 and name not in _IN_SESSIONS:
        how = "join lines by the key continues" if name == "custom" else "a trace has no sessions"
        raise UsageError(f"--session-turns is for --dataset-name {', '.join(_IN_SESSIONS)}; {how}.")
    if flags.think_time != (0.0, 0.0) and flags.session_turns == 1 and name != "custom":
        raise UsageError("--think-time is the time between the turns of a session: add --session-turns N.")


# --- a load of each name; ``common``: the number of prompts, and the timing ---


def _random(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    prompt, answer = flags.random_input_len or _USUAL_INPUT, flags.random_output_len or (_USUAL_OUTPUT, _USUAL_OUTPUT)
    if flags.random_range_ratio is not None:
        prompt, answer = (_around(span, flags.random_range_ratio) for span in (prompt, answer))
    return RandomLoad(
        **_counted(common),
        input_len=prompt,
        output_len=answer[0] if answer[0] == answer[1] else answer,
        prefix_len=flags.random_prefix_len,
        ignore_eos=flags.ignore_eos,
    )


def _around(span: tuple[int, int], share: float) -> tuple[int, int]:
    """As in vLLM: from the length less this share, rounded down, to the length and this share, rounded up."""
    if span[0] != span[1]:
        raise UsageError(
            f"--random-range-ratio needs one length, and {span[0]}:{span[1]} are two (the default of "
            "--random-input-len, if it is not given): give --random-input-len N, or leave the ratio out."
        )
    return max(1, math.floor(span[0] * (1 - share))), math.ceil(span[0] * (1 + share))


def _natural(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    return NaturalLoad(
        **_counted(common),
        input_len=flags.random_input_len or _USUAL_INPUT,
        output_len=(flags.random_output_len or (_USUAL_OUTPUT,))[0],
        ignore_eos=flags.ignore_eos,
    )


def _prefix_repetition(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    return PrefixRepetitionLoad(
        **_counted(common),
        prefix_len=flags.prefix_repetition_prefix_len,
        suffix_len=flags.prefix_repetition_suffix_len,
        num_prefixes=flags.prefix_repetition_num_prefixes,
        output_len=flags.prefix_repetition_output_len,
        ignore_eos=flags.ignore_eos,
    )


def _sharegpt(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    lengths = {"output_len": flags.sharegpt_output_len, "ignore_eos": flags.ignore_eos}
    return ShareGptLoad(path=flags.dataset_path, **common, **lengths)


def _custom(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    lengths = {"output_len": flags.custom_output_len, "ignore_eos": flags.ignore_eos}
    return DatasetLoad(path=flags.dataset_path, **common, **lengths)


def _trace(flags: argparse.Namespace, common: dict[str, Any]) -> Load:
    return TraceLoad(
        path=flags.dataset_path,
        **common,
        block_size=flags.trace_block_size,
        speedup=flags.trace_speedup,
        ignore_eos=flags.ignore_eos,
    )


def _counted(common: dict[str, Any]) -> dict[str, Any]:
    """The same with a number of prompts, for loads that are made up and have no natural end."""
    return {**common, "num_prompts": common["num_prompts"] or RandomLoad.num_prompts}


_MAKERS = {
    "random": _random,
    "natural": _natural,
    "prefix_repetition": _prefix_repetition,
    "sharegpt": _sharegpt,
    "custom": _custom,
    "trace": _trace,
}
