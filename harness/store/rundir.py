"""A run's directory: its name, its files, and how to read it back.

    RESULT_DIR/
      20260102T030405Z-nightly-s7/
        history.jsonl      the journal, written during the run
        deployment.json    the facts that oracle and checkers use
        result.json        the verdict, and the flat keys of a benchmark's result
        report.html        the report to look at, for a browser
        crash.txt          the traceback, if the harness itself failed
        logs/              one file per launched server
      latest               a link to the newest run

No credential is stored: histories have no headers, and credentials in the command line, URLs and error texts are
replaced here.
"""

import contextlib
import errno
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

from harness.collector import collector_paused
from harness.errors import HarnessError, UsageError
from harness.facts import Deployment
from harness.history import Decoding, Ended, Entry, History, Noted, RunEnded, RunStarted, Sampled, Scraped, ScrapeFailed
from harness.redact import redact_deployment, redact_text, redact_url
from harness.store.atomic import point_at, write_atomically
from harness.store.codec import decode, dumps, parse_json
from harness.store.earlier import convert_deployment
from harness.store.journal import JournalWriter, read_journal
from harness.store.readers import MalformedError
from harness.store.redact import redact_argv

HISTORY = "history.jsonl"
DEPLOYMENT = "deployment.json"
RESULT = "result.json"
LOGS = "logs"
LATEST = "latest"


class RunStore:
    """Writes one run's directory. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / LOGS
        """The directory for the servers' logs; exists."""
        self.logs.mkdir()
        self.journal = path / HISTORY
        """The file of the history, which is being written."""
        self._journal = JournalWriter(self.journal, redacted=_redacted)

    @classmethod
    def create(
        cls,
        result_dir: str | Path = "runs",
        *,
        label: str = "",
        seed: int | None = None,
        now: datetime | None = None,
        latest: bool = True,
    ) -> "RunStore":
        """Make a new directory under ``result_dir`` and, if ``latest``, point the link ``latest`` at it.

        Raises UsageError.
        """
        parent = Path(result_dir)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            store = cls(_fresh(parent, run_name(now or datetime.now(UTC), label, seed)))
        except OSError as error:
            raise UsageError(
                f"No run can be stored in {parent}: {error.strerror}. Name a directory that can be written to "
                "with --result-dir."
            ) from error
        if latest:
            # The link is a convenience: the filesystem may have no links, or a directory may have this name.
            with contextlib.suppress(OSError):
                point_at(parent / LATEST, store.path.name)
        return store

    def record(self, entry: Entry) -> None:
        """Append to the history; returns before the entry is written. Raises HarnessError if the disk fails."""
        self._journal.record(entry)

    def save_deployment(self, deployment: Deployment) -> None:
        """Store the deployment's facts; facts stored before are replaced."""
        self.save_text(DEPLOYMENT, dumps(redact_deployment(deployment)) + "\n")

    def save_result(self, result: Mapping[str, object], name: str = RESULT) -> Path:
        """Store the result; ``name`` is a file name in the run's directory, or an absolute path."""
        return save_result(self.path, result, name)

    def save_text(self, name: str, text: str) -> Path:
        """Store any other report atomically; returns its path."""
        return save_text(self.path / name, text)

    def close(self) -> None:
        """Write pending entries and close the journal; a second call does nothing."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def save_result(directory: Path, result: Mapping[str, object], name: str = RESULT) -> Path:
    """Store a result in the directory of a run that has ended; returns its path."""
    return save_text(directory / name, json.dumps(result, indent=2, allow_nan=False) + "\n")


_REMEDIES = {
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there",
    errno.ENOENT: "Its directory is gone: do not remove or rename it during a run",
}
"""What to do, by the kind of error; for other errors, another path is needed."""


def save_text(path: Path, text: str | bytes) -> Path:
    """Write a file atomically, text as UTF-8. Raises HarnessError."""
    try:
        write_atomically(path, text)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Name a path that can be written to")
        raise HarnessError(f"{path} could not be written: {error.strerror}. {remedy}.") from error
    return path


def load_run(path: str | Path) -> tuple[Deployment, History]:
    """Read a stored run, which may have been killed. Raises UsageError with what is missing or damaged."""
    directory = Path(path)
    if not directory.is_dir():
        raise UsageError(
            f"{directory} is not a directory. Name a run's directory, which contains {HISTORY}, such as runs/{LATEST}."
        )
    with collector_paused():
        history = History(tuple(read_journal(directory / HISTORY)))
    if not any(True for _ in history.of(RunStarted)):
        raise UsageError(
            f"{directory / HISTORY} has no run_started entry: it is of a command that judges no run (serve, "
            "selftest), or the run was killed before its first entry. Name another run's directory."
        )
    deployment = _load_deployment(directory / DEPLOYMENT)
    return deployment, _with_end_tokens(history, deployment)


def _with_end_tokens(history: History, deployment: Deployment) -> History:
    """The history with a ``Decoding`` entry from the deployment's facts, if an earlier version stored none."""
    token_ids = deployment.end_token_ids
    if not token_ids or any(True for _ in history.of(Decoding)):
        return history
    return History((*history.entries, Decoding(0.0, token_ids, ends_complete=deployment.launched)))


def run_name(now: datetime, label: str = "", seed: int | None = None) -> str:
    """UTC time first, so that names sort; then the label in characters fit for a file name, and the seed."""
    stem = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    word = re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[:40]
    return "-".join([stem, *([word] if word else []), *([] if seed is None else [f"s{seed}"])])


def _fresh(parent: Path, name: str) -> Path:
    """Make a new directory, also if another run began in the same second."""
    for attempt in count(1):
        path = parent / (name if attempt == 1 else f"{name}-{attempt}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("count() has no end")


def _redacted(entry: Entry) -> Entry:
    """The entry without credentials. Servers' outputs are not changed: they are the evidence."""
    changes: dict[str, Any] = {}
    match entry:
        case RunStarted(argv=argv):
            changes = {"argv": redact_argv(argv)}
        case Ended(cause=cause, prefill_server=prefill, decode_server=decode):
            changes = {
                "cause": redact_text(cause),
                "prefill_server": prefill and redact_url(prefill),
                "decode_server": decode and redact_url(decode),
            }
        case ScrapeFailed(cause=cause) | Sampled(cause=cause):
            changes = {"cause": redact_text(cause)}
        case Scraped(unsettled_because=reason) if reason:
            changes = {"unsettled_because": redact_text(reason)}
        case RunEnded(died=died) if died:
            changes = {"died": tuple(replace(one, text=redact_text(one.text)) for one in died)}
        case Noted(text=text):
            changes = {"text": redact_text(text)}
    # What has no credential stays the same object: large fields, which may lie elsewhere, need not be read to copy it.
    return replace(entry, **changes) if any(getattr(entry, name) != new for name, new in changes.items()) else entry


def _load_deployment(path: Path) -> Deployment:
    try:
        return decode(Deployment, convert_deployment(parse_json(path.read_bytes(), stored=True)))
    except FileNotFoundError as error:
        raise UsageError(
            f"{path} does not exist: the run ended before its deployment was up, so there is nothing to judge."
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (MalformedError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}. The file is damaged, or a later version of the harness wrote it."
        ) from error
