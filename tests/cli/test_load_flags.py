"""Flags of the load: what they ask for, and which contradict each other."""

import math
from pathlib import Path

import pytest

from harness.cli.load_options import SweepOptions, at_rate
from harness.cli.options import parse
from harness.errors import UsageError
from harness.loads import (
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

FILE = Path("x.json")


@pytest.mark.parametrize(
    "load",
    [
        RandomLoad(num_prompts=7, seed=3, output_len=(4, 9), prefix_len=5, ignore_eos=True),
        RandomLoad(concurrency=None, arrival=Steady(0.1)),
        RandomLoad(concurrency=5, arrival=Steady(8.5, 0.25)),
        RandomLoad(concurrency=None, arrival=Steady(8.0, math.inf), turns=3, think_time=(0.5, 2.0)),
        RandomLoad(concurrency=None, arrival=Ramp("exponential", 1.0, 16.0)),
        RandomLoad(concurrency=None, arrival=Stages(((5.0, 3.0), (0.0, 1.0), (10.0, 2.5)), 2.0), num_prompts=40),
        NaturalLoad(num_prompts=9, input_len=(30, 40), output_len=6, turns=2, ignore_eos=True),
        PrefixRepetitionLoad(num_prompts=9, prefix_len=8, suffix_len=7, num_prefixes=3, output_len=2, ignore_eos=True),
        ShareGptLoad(path=FILE, num_prompts=9, output_len=6, turns=2, think_time=(1.0, 1.0), ignore_eos=True),
        DatasetLoad(path=FILE, num_prompts=9, output_len=6, think_time=(1.0, 1.0), ignore_eos=True),
        TraceLoad(path=FILE, num_prompts=9, block_size=16, speedup=2.5, ignore_eos=True),
        TraceLoad(path=FILE, concurrency=4, arrival=Steady(3.0)),
    ],
    ids=str,
)
def test_a_load_is_the_one_that_its_own_words_ask_for(load: Load) -> None:
    words = list(load.words())
    if isinstance(load.arrival, Stages):
        # Stages say how many requests there are.
        at = words.index("--num-prompts")
        del words[at : at + 2]
    assert parse(words).load == load


def test_at_a_rate_there_is_no_limit_of_requests_in_flight_unless_one_is_given() -> None:
    assert parse([]).load.concurrency == 32
    assert parse(["--request-rate", "4"]).load.concurrency is None
    assert parse(["--request-rate", "4", "--max-concurrency", "9"]).load.concurrency == 9
    assert parse(["--request-rate", "inf"]).load == parse([]).load


def test_lengths_within_a_share_as_in_vllm() -> None:
    words = ["--random-input-len", "100", "--random-output-len", "15", "--random-range-ratio", "0.25"]
    load = parse(words).load
    assert isinstance(load, RandomLoad)
    assert (load.input_len, load.output_len) == ((75, 125), (11, 19))


def test_stages_and_their_units() -> None:
    assert parse(["--stages", "5:30s,10:1m,2:500ms,1:1h,3:7"]).load.arrival == Stages(
        ((5.0, 30.0), (10.0, 60.0), (2.0, 0.5), (1.0, 3600.0), (3.0, 7.0))
    )
    assert parse(["--stages", "5:30s,10:1m"]).load.num_prompts == 750


def test_objectives() -> None:
    assert parse(["--goodput", "ttft:200", "tpot:50.5"]).goodput == {"ttft": 200.0, "tpot": 50.5}
    assert parse([]).goodput == {}


def test_a_sweep() -> None:
    assert parse([]).sweep is None
    listed = parse(["--sweep", "4,1,2", "--num-prompts", "9", "--burstiness", "2"])
    assert listed.sweep == SweepOptions((1.0, 2.0, 4.0), 1.0, 0.9, 9, 20.0)
    assert at_rate(listed.load, 4.0, 9).arrival == Steady(4.0, 2.0)
    searched = parse(["--sweep", "--goodput", "ttft:9", "--request-rate", "5", "--sweep-goal", "99"])
    assert searched.sweep == SweepOptions((), 5.0, 0.99, None, 20.0)
    assert at_rate(searched.load, 6.0, 40).concurrency is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--request-rate 4 --stages 1:5", "--request-rate and --stages contradict"),
        ("--ramp-up-strategy linear --request-rate 4 --ramp-up-start-rps 1 --ramp-up-end-rps 2", "contradict"),
        ("--ramp-up-strategy linear", "A ramp needs three flags"),
        ("--ramp-up-start-rps 3", "A ramp needs three flags"),
        ("--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps inf", "A ramp needs three flags"),
        ("--burstiness 2", "add --request-rate"),
        ("--stages 1:5 --num-prompts 4", "leave --num-prompts out"),
        ("--workload * --request-rate 4", "timings of their own"),
        ("--workload * --dataset-name natural", "cannot be combined with --workload"),
        ("--dataset-name trace", "needs --dataset-path"),
        ("--dataset-name sharegpt", "needs --dataset-path"),
        ("--dataset-name natural --dataset-path x", "cannot have --dataset-path"),
        ("--dataset-name prefix_repetition --dataset-path x", "cannot have --dataset-path"),
        ("--dataset-path x --session-turns 3", "by the key continues"),
        ("--dataset-name trace --dataset-path x --session-turns 3", "a trace has no sessions"),
        ("--think-time 3", "add --session-turns"),
        ("--random-range-ratio 0.5", "20:400 are two"),
        ("--random-range-ratio 0.5 --random-input-len 3:9", "3:9 are two"),
        ("--dataset-name natural --random-prefix-len 3", "--random-prefix-len is not for"),
        ("--dataset-name prefix_repetition --input-len 3", "--random-input-len is not for"),
        ("--dataset-name natural --output-len 3:5", "is one number"),
        ("--sweep", "objectives of --goodput"),
        ("--sweep 1,2 --stages 1:5", "cannot be combined"),
        ("--sweep 1,2 --workload *", "cannot be combined"),
        ("--sweep 1,2 --junit x", "--junit"),
    ],
)
def test_flags_that_contradict_each_other(words: str, why: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--request-rate 0", "above 0"),
        ("--request-rate fast", "is not a number"),
        ("--request-rate nan", "is not a number"),
        ("--burstiness 0", "above 0"),
        ("--stages 5", "is not a stage"),
        ("--stages 5:0s", "is not a time"),
        ("--stages=-1:5s", "is not a rate"),
        ("--stages inf:5s", "is not a rate"),
        ("--stages 5:3x", "is not a number"),
        ("--stages 0:5s", "has no request"),
        ("--session-turns 0", "not at least 1"),
        ("--think-time 3:1", "the smaller and the larger"),
        ("--think-time -1", "0 or more"),
        ("--goodput itl:5", "ttft, tpot, e2el"),
        ("--goodput ttft", "is not a number"),
        ("--goodput ttft:0", "above 0"),
        ("--sweep 1,x", "is not a number"),
        ("--sweep 1,inf", "finite rates"),
        ("--sweep-goal 101", "at most 100"),
        ("--random-range-ratio 1", "less than 1"),
        ("--trace-speedup 0", "above 0"),
        ("--trace-block-size 0", "not at least 1"),
        ("--dataset-name sonnet", "invalid choice"),
    ],
)
def test_values_that_make_no_sense(words: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(words.split())
    assert raised.value.code == 2
    assert why in capsys.readouterr().err
