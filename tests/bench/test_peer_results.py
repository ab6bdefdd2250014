"""What is read from each load generator's result files."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.peer_results import aiperf, guidellm, ours, vllm
from bench.stamps import Stamps
from harness.facts import Deployment, Role, Server
from harness.history import Choice, Ended, Outcome, RunStarted, Sent
from harness.scenario import Request, Sampling
from harness.store import RunStore

_STAMPS = Stamps(np.array([2, 1]), np.array(["bench-1", "bench-0"]), np.zeros(2), np.zeros((2, 2)))


def test_vllm_numbers_its_requests_in_the_order_of_its_arrays(tmp_path: Path) -> None:
    (tmp_path / "vllm.json").write_text(json.dumps({"ttfts": [0.5, 0.7, 0.9], "itls": [[0.1, 0.3], [0.2, 0.2], []]}))
    first, second = vllm(tmp_path, _STAMPS)
    assert (first.row, first.ttft, first.mean_gap) == pytest.approx((1, 0.5, 0.2))
    assert (second.row, second.ttft) == (0, 0.7)


def test_aiperf_reports_milliseconds(tmp_path: Path) -> None:
    (tmp_path / "aiperf").mkdir()
    records = [
        {
            "metadata": {"x_request_id": name},
            "metrics": {"time_to_first_token": {"value": 50}, "inter_chunk_latency": {"value": [0.0, 10.0]}},
        }
        for name in ("bench-0", "of another run")
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "aiperf" / "profile_export.jsonl").write_text(lines)
    (one,) = aiperf(tmp_path, _STAMPS)
    assert (one.row, one.ttft, one.mean_gap) == pytest.approx((1, 0.050, 0.005))
    assert one.gaps is not None
    assert one.gaps.tolist() == [0.0, 0.010]


def test_guidellm_is_matched_by_the_response_id_and_reports_no_single_gaps(tmp_path: Path) -> None:
    one = {"response_id": "cmpl-0-000000000002", "time_to_first_token_ms": 50, "inter_token_latency_ms": 4}
    benchmark = {"requests": {"successful": [one, {**one, "response_id": "cmpl-0-000000000009"}]}}
    (tmp_path / "guidellm.json").write_text(json.dumps({"benchmarks": [benchmark]}))
    (found,) = guidellm(tmp_path, _STAMPS)
    assert (found.row, found.ttft, found.mean_gap) == pytest.approx((0, 0.050, 0.004))
    assert found.gaps is None


def test_the_harness_is_measured_from_the_actual_sending(tmp_path: Path) -> None:
    sent = Sent(1.0, Request("bench-1", (1, 2), Sampling(3)), "s", "load", intended_at=0.2)
    ended = Ended(2.0, "bench-1", Outcome.OK, choices=(Choice((7, 8, 9), ""),), token_times=(1.5, 1.5, 1.75))
    with RunStore.create(tmp_path / "runs") as store:
        store.save_deployment(Deployment((Server("decode-0", Role.DECODE, "http://d"),), None, "m"))
        for entry in (RunStarted(0.0, (), 0, "", None, ("s",)), sent, ended):
            store.record(entry)
    (one,) = ours(tmp_path, _STAMPS)
    assert (one.row, one.ttft) == pytest.approx((0, 0.5))
    assert one.gaps is not None
    assert one.gaps.tolist() == [0.0, 0.25]
