"""A soak finds what grows on a simulated pair, and nothing where nothing does."""

import os

import pytest

from bench.soak import main, slopes
from bench.soak_sample import Sample


def test_the_first_quarter_of_the_parts_does_not_count() -> None:
    filling = [Sample(1000 * n, {("decode-0", "KV blocks"): min(n, 4) * 100.0}) for n in range(1, 17)]
    (_, found), *_ = slopes(filling)
    assert found.estimate == found.high == 0


def test_each_measurement_has_a_slope_of_its_own_per_1000_requests() -> None:
    samples = [Sample(500 * n, {("a", "memory"): 8.0, ("b", "memory"): 3.0 * n}) for n in range(1, 13)]
    found = dict(slopes(samples))
    assert found["a", "memory"].estimate == 0
    assert found["b", "memory"].estimate == pytest.approx(6.0)


@pytest.mark.slow
def test_a_planted_leak_of_blocks_is_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PD_HARNESS_SIM_PLANT", "")
    words = ["--engine", "sim", "--transfers", "600", "--parts", "12", "--settle-timeout-sec", "1"]
    assert main([*words, "--plant", "leaked_blocks=0.05"]) == 1
    assert "GROWS prefill-0 KV blocks" in capsys.readouterr().out
