"""bench.history measures a run that is like a real one."""

from pathlib import Path

from bench.history import read, record
from harness.history import History, Outcome
from harness.store import read_journal


def test_a_recorded_run_is_read_and_folded_over(tmp_path: Path) -> None:
    recorded, back = record(30, tmp_path / "h.jsonl"), read(30, tmp_path / "h.jsonl")
    operations = History(tuple(read_journal(tmp_path / "h.jsonl"))).operations()
    assert len(operations) == 30
    for operation in operations:
        (choice,) = operation.ended.choices
        assert operation.outcome is Outcome.OK
        assert len(operation.prompt_token_ids or ()) == 200
        assert 16 <= len(choice.token_ids) == len(choice.logprobs) == len(operation.ended.token_times) <= 128
        assert sorted(operation.ended.token_times) == list(operation.ended.token_times)
    assert recorded.journal_bytes == (tmp_path / "h.jsonl").stat().st_size
    assert set(recorded.seconds) == {"recording", "in the loop"}
    assert set(back.seconds) == {"reading", "outcomes", "prompts", "times", "answers"}
    assert recorded.row().split()[0] == "30"
