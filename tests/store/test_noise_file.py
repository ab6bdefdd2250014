"""Noise kept in a file gives the same limits as control requests, for the same deployment only."""

from pathlib import Path

import numpy as np
import pytest
from counted_run import DEPLOYMENT
from forced_histories import Readings, gaussian, operations, read, run

from harness.cli.options import Options, parse
from harness.cli.run import _keep_noise
from harness.errors import UsageError
from harness.history import Entry, History, NoisyOutput, RunEnded
from harness.run import Carried
from harness.scenario import Condition, Route
from harness.store.journal import decode_entry, encode_entry
from harness.store.noise_file import FRESH, KEPT, MOST_OUTPUTS, add_noise, noise_key, read_noise
from harness.verdict import Check, Judgement, Verdict
from harness.verify.judging import control_outputs, count_outputs, outputs, wrong_outputs

KEY = noise_key(DEPLOYMENT, 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "noise.json"
    add_noise(path, KEY, control_outputs(run(gaussian(1e-5), seed=1)))
    return path


def without_control(entries: tuple[Entry, ...], file: Path) -> History:
    measured = read_noise(file, KEY, 0.5)
    assert measured is not None
    return History((decode_entry(encode_entry(measured)), *entries))


def test_the_limits_are_those_of_the_stored_measurement(file: Path) -> None:
    history = without_control(run(gaussian(1e-5), seed=1, controls=0).entries, file)
    assert count_outputs(history) == count_outputs(run(gaussian(1e-5), seed=1))
    check = outputs(DEPLOYMENT, history)
    assert check.verdict is Verdict.VALID
    assert "noise limit from noise.json: 32 control outputs, measured 0.0 days ago" in check.summary


def test_wrong_outputs_are_found_with_stored_noise_and_noisy_ones_pass(file: Path) -> None:
    def wrong(name: str, readings: Readings) -> None:
        if name == "load-17":
            readings.forced[5] -= 4.0

    for seed in range(2, 12):
        clean = without_control(run(gaussian(1e-5), seed=seed, controls=0).entries, file)
        assert outputs(DEPLOYMENT, clean).verdict is Verdict.VALID
        bad = without_control(run(gaussian(1e-5), seed=seed, controls=0, damage=wrong).entries, file)
        assert wrong_outputs(bad) == ("load-17",)


def test_another_deployments_file_is_refused_with_the_reason(file: Path) -> None:
    with pytest.raises(UsageError, match="concurrency: 32 there, 8 here"):
        read_noise(file, noise_key(DEPLOYMENT, 8), 0.0)
    newer = DEPLOYMENT.with_servers(version="0.33.0")
    with pytest.raises(UsageError, match=r"prefill 0.32.0 .*there, .*prefill 0.33.0"):
        read_noise(file, noise_key(newer, 32), 0.0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outputs": 3}'])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "noise.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="--noise-floor"):
        read_noise(path, KEY, 0.0)


def test_a_file_of_an_older_format_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    path.write_text('{"deployment":{"model":"m"},"wall":1.0,"outputs":[]}')
    with pytest.raises(UsageError, match="written by another version of the harness"):
        read_noise(path, KEY, 0.0)


def measured(count: int, value: float) -> tuple[NoisyOutput, ...]:
    return (NoisyOutput((0.0,), (value,), (value,), (1.0,)),) * count


def test_a_file_with_the_earlier_name_of_the_measurements_is_read(file: Path) -> None:
    before = read_noise(file, KEY, 0.0)
    file.write_text(file.read_text().replace('"measurements"', '"arms"'))
    assert before is not None
    assert read_noise(file, KEY, 0.0) == before


def test_noise_is_measured_again_when_stale_and_dropped_when_too_old(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    add_noise(path, KEY, measured(3, 1.0), now=1000.0)
    assert read_noise(path, KEY, 0.0, now=1000.0 + FRESH - 1) is not None
    assert read_noise(path, KEY, 0.0, now=1000.0 + FRESH) is None
    add_noise(path, KEY, measured(2, 2.0), now=1000.0 + FRESH)
    both = read_noise(path, KEY, 0.0, now=1001.0 + FRESH)
    assert both is not None
    assert "5 control outputs of 2 runs" in both.origin
    add_noise(path, KEY, measured(2, 3.0), now=1000.0 + KEPT)
    kept = read_noise(path, KEY, 0.0, now=1001.0 + KEPT)
    assert kept is not None
    assert [output.drift[0] for output in kept.outputs] == [2.0, 2.0, 3.0, 3.0]


def test_the_file_stays_bounded_and_the_newest_stay_in_it(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    for number in range(5):
        add_noise(path, KEY, measured(MOST_OUTPUTS // 3, float(number)), now=1000.0 + number)
    kept = read_noise(path, KEY, 0.0, now=1010.0)
    assert kept is not None
    assert len(kept.outputs) == MOST_OUTPUTS
    assert {output.drift[0] for output in kept.outputs} == {1.0, 2.0, 3.0, 4.0}


def test_another_deployments_file_is_not_changed(file: Path) -> None:
    before = file.read_text()
    with pytest.raises(UsageError, match="another deployment"):
        add_noise(file, noise_key(DEPLOYMENT, 8), measured(2, 1.0))
    assert file.read_text() == before


def test_control_outputs_of_suspects_are_not_kept() -> None:
    history = run(gaussian(1e-5), seed=1)
    rng = np.random.default_rng(5)
    again = [*operations("again", read(rng, gaussian(1e-2)), Route.DECODE, about="load-1", condition=Condition.SUSPECT)]
    assert control_outputs(History((*history.entries, *again))) == control_outputs(history)


def keeping(path: Path) -> Options:
    return parse(["--engine", "sim", "--concurrency", "32", "--noise-floor", str(path)])


def carried(history: History, verdict: Verdict) -> Carried:
    """A run with this verdict on its outputs."""
    done = Carried(DEPLOYMENT, history)
    vars(done)["judgement"] = judged_as(verdict)
    return done


def judged_as(verdict: Verdict) -> Judgement:
    return Judgement((Check("outputs", verdict, ""), Check("completion", Verdict.VALID, "")))


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.UNKNOWN])
def test_a_run_with_wrong_outputs_neither_writes_nor_changes_the_file(
    file: Path, tmp_path: Path, verdict: Verdict
) -> None:
    history, before = run(gaussian(1e-5), seed=2), file.read_text()
    new = tmp_path / "new.json"
    for path in (new, file):
        _keep_noise(keeping(path), carried(history, verdict))
    assert not new.exists()
    assert file.read_text() == before


def test_noise_of_a_run_with_right_outputs_is_kept_unless_it_ended_early(tmp_path: Path) -> None:
    history, path = run(gaussian(1e-5), seed=2), tmp_path / "new.json"
    stopped = History((*history.entries[:-1], RunEnded(9.0, interrupted=True)))
    _keep_noise(keeping(path), carried(stopped, Verdict.VALID))
    assert not path.exists()
    _keep_noise(keeping(path), carried(history, Verdict.VALID))
    kept = read_noise(path, KEY, 0.0)
    assert kept is not None
    assert len(kept.outputs) == 32


def test_a_directory_is_refused_without_advice_to_remove_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        read_noise(tmp_path, {}, 0.0)
    assert "Name a file in it" in str(refused.value)
    assert "Remove" not in str(refused.value)
