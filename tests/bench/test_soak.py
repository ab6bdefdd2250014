"""A soak finds what grows on a simulated pair, and nothing where nothing does."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import harness
from bench.soak import main
from bench.soak_growth import exit_code, growths, missing, verified
from bench.soak_parts import Part, Soaked, part_of
from bench.soak_sample import Sample, blocks_held
from harness.errors import ExitCode
from harness.facts import Role, Server
from harness.verdict import Verdict

_BOUNDS = {"memory": 1024.0, "descriptors": 0.1, "KV blocks": 0.01}


def soaked(samples: Sequence[Sample] = (), *parts: Part) -> Soaked:
    return Soaked(parts, tuple(samples))


def part(verdict: Verdict = Verdict.VALID, *, judged: int = 100, transfers: int = 100) -> Part:
    return Part(100, judged, transfers, external_tokens=100 * transfers, verdict=verdict)


def at_rest(parts: int = 20, **values: float) -> list[Sample]:
    usual = {"memory": 5000.0, "descriptors": 9.0, "KV blocks": 0.0} | values
    return [Sample(1000 * n, {("decode-0", name): value for name, value in usual.items()}) for n in range(parts)]


def test_memory_that_fills_in_the_first_quarter_does_not_grow() -> None:
    filling = [Sample(1000 * n, {("decode-0", "memory"): min(n, 5) * 10_000.0}) for n in range(21)]
    [found] = growths([soaked(filling)], _BOUNDS)
    assert found.slope.estimate == found.slope.high == 0


def test_blocks_that_are_held_from_the_first_quarter_on_are_leaked() -> None:
    leaking = [Sample(1000 * n, {("prefill-0", "KV blocks"): min(n, 5)}) for n in range(21)]
    [found] = growths([soaked(leaking)], _BOUNDS)
    assert found.slope.estimate == pytest.approx(5 / 20)
    assert found.surely


def test_each_measurement_has_a_slope_of_its_own_in_1000_requests() -> None:
    samples = [Sample(500 * n, {("a", "memory"): 8.0, ("b", "memory"): 3000.0 * n}) for n in range(13)]
    found = {one.part: one for one in growths([soaked(samples)], _BOUNDS)}
    assert found["a"].slope.estimate == 0
    assert found["b"].slope.estimate == pytest.approx(6000)
    assert [name for name, one in found.items() if one.surely] == ["b"]


def test_a_leak_on_one_of_two_pairs_is_found() -> None:
    leaking = [Sample(1000 * n, {("prefill-0", "KV blocks"): n}) for n in range(11)]
    clean = [Sample(1000 * n, {("prefill-0", "KV blocks"): 0}) for n in range(11)]
    [found] = growths([soaked(clean), soaked(leaking)], _BOUNDS)
    assert found.slope.estimate == pytest.approx(0.5)
    assert found.surely


def test_blocks_are_counted_without_the_null_block() -> None:
    assert blocks_held(1 / 4095, Server("a", Role.DECODE, "", num_blocks=4096)) == 1
    assert blocks_held(2 / 4095, Server("a", Role.DECODE, "", num_blocks=4096)) == 2
    assert blocks_held(0.5, Server("a", Role.DECODE, "")) is None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((part(), part()), ExitCode.VALID),
        ((part(), part(judged=99)), ExitCode.UNKNOWN),
        ((part(), part(transfers=99)), ExitCode.UNKNOWN),
        ((part(),), ExitCode.UNKNOWN),
        ((part(), part(Verdict.UNKNOWN)), ExitCode.UNKNOWN),
        ((part(), part(Verdict.INVALID)), ExitCode.INVALID),
    ],
)
def test_a_soak_is_valid_if_as_many_transfers_as_asked_were_verified(
    parts: tuple[Part, ...], expected: ExitCode
) -> None:
    runs = [soaked(at_rest(), *parts)]
    assert exit_code(runs, list(growths(runs, _BOUNDS)), asked=200) == expected


def test_transfers_whose_tokens_are_not_as_predicted_are_not_verified() -> None:
    uncounted = Part(100, judged=100, transfers=100, external_tokens=0, verdict=Verdict.VALID)
    assert verified([soaked((), part(), uncounted)]) == 100


def test_more_transfers_than_requests_verify_no_more_than_these() -> None:
    assert verified([soaked((), part(transfers=900))]) == 100


def test_what_was_not_measured_is_not_well() -> None:
    runs = [soaked([Sample(n, {("decode-0", "memory"): 1.0}) for n in range(20)], part())]
    found = list(growths(runs, _BOUNDS))
    assert missing(found) == ["descriptors", "KV blocks"]
    assert exit_code(runs, found, asked=100) is ExitCode.UNKNOWN
    assert missing(list(growths([soaked(at_rest(parts=5))], _BOUNDS))) == ["decode-0 memory"]


def _soak(tmp_path: Path, *more: str, seed: int = 0) -> int:
    """160 transfers: memory still fills caches, and is not what this is about."""
    words = [
        "--engine",
        "sim",
        "--transfers",
        "160",
        "--parts",
        "4",
        "--concurrency",
        "4",
        "--most-kib",
        "100000",
        "--seed",
        str(seed),
    ]
    return main([*words, "--out", str(tmp_path), *more])


@pytest.mark.slow
def test_only_what_was_judged_and_counted_is_verified() -> None:
    load = harness.RandomLoad(num_prompts=24, concurrency=8, input_len=(40, 60), output_len=8)
    with harness.simulate() as deployment:
        all_judged = part_of(deployment.run(load, verify="sample:24"))
        some_judged = part_of(deployment.run(load, verify="sample:5"))
    assert (all_judged.requests, all_judged.verified, all_judged.transfers) == (24, 24, 24)
    assert some_judged.requests == some_judged.transfers == 24
    assert 5 <= some_judged.verified < 24


@pytest.mark.slow
def test_one_leaked_block_in_20_requests_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PD_HARNESS_SIM_PLANT", "")
    assert _soak(tmp_path, "--plant", "leaked_block=0.05", "--settle-timeout-sec", "1") == ExitCode.INVALID
    printed = capsys.readouterr().out
    assert "GROWS prefill-0 KV blocks" in printed
    assert "GROWS decode-0 KV blocks" not in printed


@pytest.mark.slow
def test_clean_pairs_leak_no_block_and_all_their_transfers_are_verified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "PD_HARNESS_SIM_PLANT", "")
    code = _soak(tmp_path, "--pairs", "2", "--parts", "2", "--transfers", "80")
    printed = capsys.readouterr().out
    assert printed.count("KV blocks: +0.000 (+0.000 to") == 2
    assert "80 verified transfers of 80" in printed
    # Connections are still being opened, and so few parts give memory no interval.
    assert code != ExitCode.VALID
