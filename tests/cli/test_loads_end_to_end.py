"""Each kind of load and arrival from the command line, against the simulated pair."""

import json
from pathlib import Path

import pytest
from command_line import run_harness

from harness.cli.rejudged import rejudge
from harness.sweep import Point

pytestmark = pytest.mark.slow
SIM = ("--engine", "sim", "--plain", "--num-warmups", "1", "--verify", "sample:4")

_SAME = ("verdict", "request_rate", "burstiness", "max_concurrency", "num_prompts", "mean_ttft_ms")

FILES = {
    "trace": "".join(
        json.dumps({"timestamp": 40 * n, "input_length": 50 + n, "output_length": 6, "hash_ids": [1, 2 + n % 3]}) + "\n"
        for n in range(16)
    ),
    "sharegpt": json.dumps(
        [
            {"conversations": [{"from": who, "value": f"{n} {who} says this and that"} for who in ("human", "gpt") * 2]}
            for n in range(12)
        ]
    ),
    "custom": "".join(
        json.dumps({"request_id": f"a{n}", "prompt": f"hello {n}", "output_tokens": 6})
        + "\n"
        + json.dumps({"continues": f"a{n}", "prompt": " and then?", "output_tokens": 6})
        + "\n"
        for n in range(8)
    ),
}


@pytest.mark.parametrize(
    ("words", "requests"),
    [
        ("--num-prompts 20 --request-rate 40 --burstiness 0.5", 20),
        ("--num-prompts 20 --request-rate 40 --burstiness inf --concurrency 2", 20),
        ("--num-prompts 20 --ramp-up-strategy linear --ramp-up-start-rps 10 --ramp-up-end-rps 40", 20),
        ("--stages 10:1s,0:500ms,30:500ms", 25),
        ("--num-prompts 20 --session-turns 3 --think-time 0.05:0.1 --concurrency 4", 20),
        ("--num-prompts 20 --session-turns 4 --request-rate 10 --random-output-len 6", 20),
        ("--num-prompts 20 --random-input-len 60 --random-range-ratio 0.5 --random-prefix-len 40", 20),
        (
            (
                "--num-prompts 20 --dataset-name prefix_repetition --prefix-repetition-prefix-len 64 "
                "--prefix-repetition-suffix-len 20 --prefix-repetition-num-prefixes 3 --prefix-repetition-output-len 6"
            ),
            20,
        ),
        ("--num-prompts 20 --dataset-name natural --input-len 30:90", 20),
        ("--dataset-name trace --dataset-path {trace} --trace-block-size 32 --trace-speedup 2", 16),
        ("--dataset-name sharegpt --dataset-path {sharegpt} --session-turns 2", 24),
        ("--dataset-name custom --dataset-path {custom} --think-time 0.05", 16),
    ],
)
def test_a_load_is_valid(words: str, requests: int, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    flags = words.format(**{name: tmp_path / name for name in FILES}).split()
    ran = run_harness(tmp_path / "runs", *SIM, *flags)
    assert ran.status == 0, ran.output + ran.errors
    assert ran.result["completed"] == requests
    again = rejudge(ran.directory).result
    assert [again[name] for name in _SAME] == [ran.result[name] for name in _SAME]


def test_a_sweep_over_listed_rates(tmp_path: Path) -> None:
    ran = run_harness(
        tmp_path, *SIM, "--sweep", "30,10", "--num-prompts", "12", "--goodput", "ttft:30000", "e2el:60000"
    )
    assert ran.status == 0, ran.output + ran.errors
    assert "VALID: 2 rates; the knee is at 30 requests per second" in ran.output
    found = json.loads((ran.directory / "sweep.json").read_text())
    assert (found["verdict"], found["knee"], [point["rate"] for point in found["points"]]) == ("valid", 30.0, [10, 30])
    assert set(found["points"][0]) == set(Point.__dataclass_fields__)
    assert (ran.directory / "sweep.svg").read_text().startswith("<svg")
    summary = json.loads((ran.directory / "summary.json").read_text())
    assert [each["request_rate"] for each in summary] == [10, 30]
    for point in found["points"]:
        result = json.loads((ran.directory / point["directory"] / "result.json").read_text())
        assert (result["request_rate"], result["num_prompts"], result["verdict"]) == (point["rate"], 12, "valid")
        assert result in summary
        assert "--sweep" not in result["argv"]


def test_a_search_whose_objectives_no_rate_keeps(tmp_path: Path) -> None:
    words = ("--sweep", "--request-rate", "64", "--num-prompts", "8", "--goodput", "ttft:0.01")
    ran = run_harness(tmp_path, *SIM, *words)
    assert ran.status == 0, ran.output + ran.errors
    assert "7 rates; at none of them at least 90% of the requests kept ttft:0.01" in ran.output


def test_a_file_that_does_not_fit_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text('{"timestamp": 0}\n')
    ran = run_harness(tmp_path / "runs", *SIM, "--dataset-name", "trace", "--dataset-path", str(tmp_path / "trace"))
    assert ran.status == 2
    assert "line 1: its input_length is None" in ran.errors
