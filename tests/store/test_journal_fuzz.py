"""Damaged histories are read or refused with one message; missing evidence never makes a run valid."""

import json
import random
from pathlib import Path
from typing import Any

import counted_run as run
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from harness.checkers import judge
from harness.cli.rejudged import rejudge
from harness.errors import UsageError
from harness.history import ClientHealth, Entry, History, PhaseStarted, RunStarted, Scraped
from harness.store import JournalWriter, RunStore, load_run, read_journal
from harness.verdict import Verdict

QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
HEADER = b'{"kind": "journal", "format": 1}\n'
ODD: list[Any] = [
    *(None, True, -1, 0, 2**63, -(10**400), 1.5, "nan", "inf", "-inf", "", "\x1b[31m"),
    *([], {}, [[]], {"kind": []}, [None], ["a"], {"a": {"b": 1}}),
]


def stored(directory: Path) -> Path:
    """A valid run made by hand."""
    entries: tuple[Entry, ...] = (
        RunStarted(1.7e9, ("--num-prompts", "2"), 0, "0.1.0", None, ("random_load",)),
        PhaseStarted(0.5, "s", "load"),
        *run.history().entries,
    )
    with RunStore.create(directory, latest=False) as store:
        store.save_deployment(run.DEPLOYMENT)
        for entry in entries:
            store.record(entry)
    return store.path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("whole"))


def read(path: Path, content: bytes) -> History | None:
    """The history in a file with this content; None if it is refused."""
    path.write_bytes(content)
    try:
        return History(tuple(read_journal(path)))
    except UsageError:
        return None


@given(content=st.binary(max_size=300), headed=st.booleans())
@QUIET
def test_any_bytes_are_a_history_or_a_usage_error(tmp_path: Path, content: bytes, *, headed: bool) -> None:
    history = read(tmp_path / "h.jsonl", HEADER + content if headed else content)
    assert history is None or isinstance(history, History)


@given(lines=st.lists(st.recursive(st.sampled_from(ODD), lambda inner: st.dictionaries(st.text(), inner)), max_size=4))
@QUIET
def test_any_json_is_a_history_or_a_usage_error(tmp_path: Path, lines: list[Any]) -> None:
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    history = read(tmp_path / "h.jsonl", HEADER + content)
    assert history is None or not history.entries


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"noted","at":NaN,"text":""}',
        b'{"kind":"noted","at":"nan","text":""}',
        b'{"kind":"noted","at":1e999,"text":""}',
        b'{"kind":"noted","at":1' + b"0" * 400 + b',"text":""}',
        b'{"kind":"noted","at":1' + b"0" * 5000 + b',"text":""}',
        b'{"kind":["noted"],"at":1.0,"text":""}',
        b'{"kind":{},"at":1.0,"text":""}',
        b'{"kind":"noted","at":1.0,"text":"\xff"}',
        b"[" * 100_000,
        b'{"kind":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"kind":"client_health","at":1.0,"worst_loop_lag":"nan","worst_send_delay":0,"mean_loop_lag":0,"cpu_share":0}',
        b'{"kind":"scraped","at":1,"server":"s","label":"b","scenario":"s","phase":"p","samples":[["a",{"b":1},0.0]]}',
        b'{"kind":"ended","at":1,"request_id":"a","outcome":"ok","status":99999999999999999999}',
        b'{"kind":"ended","at":1,"request_id":"a","outcome":"ok","token_times":["inf"]}',
        b'{"kind":"ended","at":1,"request_id":"a","outcome":"ok","token_times":[1,2],"tokens_per_chunk":[2,0]}',
        b'{"kind":"ended","at":1,"request_id":"a","outcome":"ok","token_times":[1,2],"tokens_per_chunk":[3,-1]}',
        b'{"kind":"ended","at":1,"request_id":"a","outcome":"ok","token_times":[1,2],"tokens_per_chunk":[1,2]}',
        b'{"kind":"run_started","wall":1e300,"argv":[],"seed":0,"harness_version":"","commit":null,"scenarios":[]}',
        b'{"kind":"run_started","wall":-1.0,"argv":[],"seed":0,"harness_version":"","commit":null,"scenarios":[]}',
    ],
    ids=lambda line: str(line[:50]),
)
def test_a_line_with_impossible_values_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(HEADER + line + b"\n")
    with pytest.raises(UsageError, match=r"h\.jsonl, line 2"):
        tuple(read_journal(path))


def test_a_number_from_a_server_may_be_anything(tmp_path: Path) -> None:
    """Only the harness's own times must be numbers: a gauge may be NaN, and a bucket's bound is infinite."""
    path = tmp_path / "h.jsonl"
    scraped = (
        b'{"kind":"scraped","at":1.0,"server":"s","label":"b","scenario":"s","phase":"p","samples":[["a",{},"nan"]]}\n'
    )
    path.write_bytes(HEADER + scraped)
    assert len(list(read_journal(path))) == 1


def damaged(lines: list[bytes], seed: int) -> list[bytes]:
    """The lines with one damage: a changed value or byte, or a line lost, doubled, moved or shortened."""
    chance = random.Random(seed)  # noqa: S311 - a test's
    lines, place = list(lines), chance.randrange(1, len(lines))
    kind = chance.choice(["value", "value", "value", "byte", "lost", "doubled", "moved", "shortened"])
    if kind == "value":
        lines[place] = json.dumps(_changed(json.loads(lines[place]), chance)).encode() + b"\n"
    elif kind == "byte":
        at = chance.randrange(len(lines[place]))
        lines[place] = lines[place][:at] + bytes([chance.randrange(256)]) + lines[place][at + 1 :]
    elif kind == "lost":
        del lines[place]
    elif kind == "doubled":
        lines.insert(place, lines[place])
    elif kind == "moved":
        lines.insert(chance.randrange(1, len(lines)), lines.pop(place))
    else:
        lines = [*lines[:place], lines[place][: chance.randrange(len(lines[place]))]]
    return lines


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with an odd value somewhere in it."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not inner or chance.random() < 0.2:
        return chance.choice(ODD)
    key, item = chance.choice(inner)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = _changed(item, chance)
    return copy


def test_the_undamaged_run_is_valid(whole: Path) -> None:
    """Otherwise the tests below could not fail."""
    deployment, history = load_run(whole)
    verdicts = {check.name: check.verdict for check in judge(deployment, history).checks}
    assert verdicts["token_sources"] is verdicts["nixl_bytes"] is verdicts["completion"] is Verdict.VALID


@given(seed=st.integers(0, 2**32))
@QUIET
def test_a_damaged_run_is_judged_or_refused(whole: Path, tmp_path: Path, seed: int) -> None:
    """Damage has no other effect, and missing entries cannot make a run valid."""
    lines = (whole / "history.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "history.jsonl").write_bytes(b"".join(damaged(lines, seed)))
    (tmp_path / "deployment.json").write_bytes((whole / "deployment.json").read_bytes())
    try:
        rejudged = rejudge(tmp_path)
    except UsageError:
        return
    json.dumps(rejudged.result, allow_nan=False)
    valid = {check.name for check in rejudged.judgement.checks if check.verdict is Verdict.VALID}
    history = rejudged.history
    assert not ("completion" in valid and history.ended_early)
    assert not ("client_health" in valid and not any(history.of(ClientHealth)))
    readings = {(one.server, one.label) for one in history.of(Scraped)}
    assert not ({"token_sources", "nixl_bytes"} & valid and len(readings) < 4)


@given(seed=st.integers(0, 2**32))
@QUIET
def test_damaged_facts_are_read_or_refused(whole: Path, tmp_path: Path, seed: int) -> None:
    """Facts of a deployment that cannot be read are a usage error."""
    content = _changed(json.loads((whole / "deployment.json").read_text()), random.Random(seed))  # noqa: S311 - a test's
    assume(content != {})
    (tmp_path / "history.jsonl").write_bytes((whole / "history.jsonl").read_bytes())
    (tmp_path / "deployment.json").write_text(json.dumps(content))
    try:
        rejudged = rejudge(tmp_path)
    except UsageError:
        return
    json.dumps(rejudged.result, allow_nan=False)


def test_a_written_run_can_be_read(tmp_path: Path) -> None:
    """All entries of an ordinary run are read back."""
    with JournalWriter(tmp_path / "h.jsonl") as journal:
        for entry in run.history().entries:
            journal.record(entry)
    assert tuple(read_journal(tmp_path / "h.jsonl")) == run.history().entries
