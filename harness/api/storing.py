"""Where a run of the Python API is stored: in a directory, or nowhere after its end."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from harness.beside import Beside
from harness.facts import Deployment
from harness.history import Entry
from harness.memo import forget
from harness.reports import LoadSettings, Report, make_report
from harness.run import Carried
from harness.store import RunStore, temporary_journal


@contextmanager
def storing(
    result_dir: str | Path | None, label: str, seed: int, facts: Deployment
) -> Iterator[tuple[Callable[[Entry], None], RunStore | None]]:
    """A function that keeps a run's entries, and the run's directory; without ``result_dir`` nothing stays on disk."""
    if result_dir is None:
        with temporary_journal() as journal:
            yield (lambda _entry: None) if journal is None else journal.record, None
        return
    with RunStore.create(result_dir, label=label, seed=seed) as store:
        store.save_deployment(facts)
        yield store.record, store


def predicting(store: RunStore | None) -> AbstractContextManager[Beside | None]:
    """A second process for a large load, which reads the stored journal; none if nothing is stored."""
    return nullcontext() if store is None else Beside(store.journal, store.logs / "beside.log")


def reported(carried: Carried, store: RunStore | None, settings: LoadSettings | None, **more: Any) -> Report:
    """The report of a run, which is saved where the run is stored; ``more``: as for :func:`make_report`."""
    path = None if store is None else store.path
    report = make_report(carried.deployment, carried.history, carried.judgement, path, settings, **more)
    if store is not None:
        store.save_result(report.result)
    # The process goes on, and what judging remembered holds the whole history, even if the caller drops the report.
    forget()
    return report
