"""A run's directory, and credentials that must not be in it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from run_fixtures import DEPLOYMENT, HISTORY, STARTED, entries

from harness.errors import HarnessError, UsageError
from harness.facts import Role, Server
from harness.history import RunStarted
from harness.store import RunStore, load_run, redact_argv, run_name

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _store(path: Path) -> Path:
    with RunStore.create(path, seed=7, now=NOW) as store:
        store.save_deployment(DEPLOYMENT)
        for entry in entries():
            store.record(entry)
        store.save_result({"verdict": "valid"})
    return store.path


def test_a_stored_run_is_read_back(tmp_path: Path) -> None:
    deployment, history = load_run(_store(tmp_path))
    assert deployment == DEPLOYMENT
    assert history.entries[1:] == HISTORY.entries[1:]


def test_a_run_has_these_files_and_no_temporary_ones(tmp_path: Path) -> None:
    path = _store(tmp_path)
    assert path.name == "20260102T030405Z-s7"
    assert {entry.name for entry in path.iterdir()} == {"history.jsonl", "deployment.json", "result.json", "logs"}
    assert json.loads((path / "result.json").read_text()) == {"verdict": "valid"}


def test_runs_of_the_same_second_do_not_share_a_directory(tmp_path: Path) -> None:
    assert [_store(tmp_path).name for _ in range(3)] == [
        "20260102T030405Z-s7",
        "20260102T030405Z-s7-2",
        "20260102T030405Z-s7-3",
    ]
    assert (tmp_path / "latest").resolve().name == "20260102T030405Z-s7-3"
    assert load_run(tmp_path / "latest")[0] == DEPLOYMENT


def test_names_are_utc_and_fit_for_a_file() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert run_name(east, "../nightly run: A/B") == "20260102T030405Z-nightly-run-A-B"
    assert run_name(NOW) == "20260102T030405Z"


def test_a_result_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    with RunStore.create(tmp_path, now=NOW) as store:
        store.save_result({"verdict": "valid"})
        with pytest.raises(ValueError, match="JSON"):
            store.save_result({"duration": float("nan")})
        with pytest.raises(HarnessError, match="could not be written"):
            store.save_text("no/such/folder", "")
    assert json.loads((store.path / "result.json").read_text()) == {"verdict": "valid"}


def test_a_result_dir_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--result-dir"):
        RunStore.create(tmp_path / "file")


def test_a_run_without_its_deployment_cannot_be_judged(tmp_path: Path) -> None:
    path = _store(tmp_path)
    (path / "deployment.json").write_text('{"servers": 3}')
    with pytest.raises(UsageError, match="cannot be read: '3' where an array"):
        load_run(path)
    (path / "deployment.json").unlink()
    with pytest.raises(UsageError, match="before its deployment was up"):
        load_run(path)


def test_no_credential_reaches_the_disk(tmp_path: Path) -> None:
    url = "http://admin:sesame@127.0.0.1:8000"
    deployment = replace(DEPLOYMENT, proxy_url=url, servers=(Server("prefill-0", Role.PREFILL, url),))
    with RunStore.create(tmp_path) as store:
        store.record(replace(STARTED, argv=("--base-url", url, "--header", "Authorization=Bearer sesame")))
        store.save_deployment(deployment)
    written = [path.read_bytes() for path in store.path.rglob("*") if path.is_file()]
    assert len(written) == 2
    assert not any(b"sesame" in content for content in written)
    started = next(load_run(store.path)[1].of(RunStarted))
    assert started.argv == ("--base-url", "http://<redacted>@127.0.0.1:8000", "--header", "Authorization=<redacted>")


@pytest.mark.parametrize(
    ("argv", "stored"),
    [
        ("--header|X-Api-Key=sesame", "--header|X-Api-Key=<redacted>"),
        ("--header=authorization=Bearer sesame", "--header=authorization=<redacted>"),
        ("--header|Cookie: sesame", "--header|Cookie: <redacted>"),
        ("--header|X-Trace=Bearer sesame", "--header|X-Trace=Bearer <redacted>"),
        ("--header|Accept=text/plain", "--header|Accept=text/plain"),
        ("--api-key|sesame", "--api-key|<redacted>"),
        ("--api-key=sesame", "--api-key=<redacted>"),
        ("--engine-arg=--api-key=sesame", "--engine-arg=--api-key=<redacted>"),
        ("--engine-arg|--api-key|--engine-arg|sesame", "--engine-arg|--api-key|--engine-arg|<redacted>"),
        ("--engine-arg=--api-key|--engine-arg=sesame", "--engine-arg=--api-key|--engine-arg=<redacted>"),
        ('--extra-body|{"api_key": "se\\"same", "n": 1}', '--extra-body|{"api_key": "<redacted>", "n": 1}'),
        ("--base-url|http://h/v1?token=sesame&a=b", "--base-url|http://h/v1?token=<redacted>&a=b"),
        ("--tokenizer|a/b", "--tokenizer|a/b"),
        ("--engine-arg=--max-num-batched-tokens=64", "--engine-arg=--max-num-batched-tokens=64"),
        ("--metadata|keyboard=qwerty", "--metadata|keyboard=qwerty"),
        ("--goodput|ttft:200|tpot:50", "--goodput|ttft:200|tpot:50"),
    ],
)
def test_credentials_are_redacted_by_name_and_other_arguments_are_kept(argv: str, stored: str) -> None:
    redacted = redact_argv(argv.split("|"))
    assert "|".join(redacted) == stored
    assert redact_argv(redacted) == redacted
