"""A noise floor kept from run to run: the same limits without a control arm, and nobody else's."""

from dataclasses import replace
from pathlib import Path

import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, run

from harness.checkers.outputs import control_outputs, count_outputs, outputs, wrong_outputs
from harness.errors import UsageError
from harness.history import Entry, History
from harness.store.journal import decode_entry, encode_entry
from harness.store.noise_file import noise_key, read_noise, write_noise
from harness.verdict import Verdict

KEY = noise_key(DEPLOYMENT, 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "noise.json"
    write_noise(path, KEY, control_outputs(run(gaussian(1e-5), seed=1)))
    return path


def without_control(entries: tuple[Entry, ...], file: Path) -> History:
    measured = read_noise(file, KEY, 0.5)
    return History((decode_entry(encode_entry(measured)), *entries))


def test_the_limits_are_those_of_the_control_arm_that_was_kept(file: Path) -> None:
    history = without_control(run(gaussian(1e-5), seed=1, controls=0).entries, file)
    assert count_outputs(history) == count_outputs(run(gaussian(1e-5), seed=1))
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    assert "noise as in noise.json: 32 control outputs, measured 0.0 days ago" in check.summary


def test_what_is_wrong_is_found_and_other_runs_noise_is_not(file: Path) -> None:
    def wrong(name: str, readings: Readings) -> None:
        if name == "load-17":
            readings.forced[5] -= 4.0

    for seed in range(2, 12):
        clean = without_control(run(gaussian(1e-5), seed=seed, controls=0).entries, file)
        assert outputs(DEPLOYMENT, clean).verdict is Verdict.VALID
        bad = without_control(run(gaussian(1e-5), seed=seed, controls=0, damage=wrong).entries, file)
        assert wrong_outputs(bad) == ("load-17",)


def test_another_deployments_floor_is_refused_and_says_why(file: Path) -> None:
    with pytest.raises(UsageError, match="concurrency: 32 there, 8 here"):
        read_noise(file, noise_key(DEPLOYMENT, 8), 0.0)
    newer = replace(DEPLOYMENT, servers=tuple(replace(one, version="0.33.0") for one in DEPLOYMENT.servers))
    with pytest.raises(UsageError, match=r"prefill 0.32.0 .*there, .*prefill 0.33.0"):
        read_noise(file, noise_key(newer, 32), 0.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outputs": 3}'])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "noise.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="--noise-floor"):
        read_noise(path, KEY, 0.0)
