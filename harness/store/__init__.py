"""Runs on disk: the journal of a run's history, and the directory that contains it."""

from harness.store.following import follow_journal
from harness.store.journal import JournalWriter, decode_entry, encode_entry, read_journal
from harness.store.redact import redact_argv
from harness.store.rundir import RunStore, load_run, run_name, save_result, save_text
from harness.store.temporary import temporary_journal

__all__ = [
    "JournalWriter",
    "RunStore",
    "decode_entry",
    "encode_entry",
    "follow_journal",
    "load_run",
    "read_journal",
    "redact_argv",
    "run_name",
    "save_result",
    "save_text",
    "temporary_journal",
]
