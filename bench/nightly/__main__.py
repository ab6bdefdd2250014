"""The nightly job: chosen loads, workloads and faults against one deployment, and a page over all nights.

    python -m bench.nightly --result-dir nightly                            launches a deployment, and ends it
    python -m bench.nightly --result-dir nightly --jobs steady,burst
    python -m bench.nightly --result-dir nightly --plan plan.toml           jobs of one's own (bench/nightly/plan.py)
    python -m bench.nightly --result-dir nightly -- --base-url ... --prefill-url ... --decode-url ...
    python -m bench.nightly --result-dir nightly --index-only               rebuilds nightly/index.html

Words after ``--`` go to the harness: flags that launch, or flags that attach. Each night has a directory in
``nightly/nights``; ``bench/nightly/archive.py`` says what lies there. A run counts as a failure of the harness (4) if
it was killed, if it ended with a status that is no exit code of the harness, if it ran into its time limit, or if the
launched deployment died meanwhile. SIGTERM ends the night as Ctrl-C does. However the night ends, everything that it
started ends too, and the night is on the page with its reason.
"""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.nightly import archive
from bench.nightly.night import Nightly, begin
from bench.nightly.options import Options, parse
from bench.nightly.page import write_index, write_night
from bench.nightly.record import Night
from bench.nightly.room import Reserve
from bench.nightly.signals import ignore_signals, signals_interrupt
from bench.nightly.summary import lines_of, write_summary
from harness.cli.output import unfailing_output
from harness.errors import ExitCode, UsageError
from harness.store.atomic import point_at

_LINES = "nightly.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a night; returns its exit code, the worst of its jobs."""
    with unfailing_output():
        try:
            options = parse(sys.argv[1:] if argv is None else argv)
            with signals_interrupt(), archive.locked(options.result_dir):
                return _index_only(options) if options.index_only else _night(options)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return int(ExitCode.USAGE)
        except KeyboardInterrupt:
            print("interrupted: the page may be older than the nights", file=sys.stderr)
            return int(ExitCode.UNKNOWN)
        except Exception as error:  # noqa: BLE001 - Python's own status of an unforeseen error is that of INVALID
            traceback.print_exc()
            print(f"error: the nightly job itself failed: {type(error).__name__}: {error}", file=sys.stderr)
            return int(ExitCode.HARNESS)


def _index_only(options: Options) -> int:
    try:
        archive.close_abandoned(options.result_dir)
        print(f"page: {write_index(options.result_dir)}")
    except OSError as error:
        print(f"error: the page could not be written: {error}", file=sys.stderr)
        return int(ExitCode.HARNESS)
    return int(ExitCode.VALID)


def _night(options: Options) -> int:
    try:
        for night in archive.close_abandoned(options.result_dir):
            print(f"the night {night.name}: {night.reasons[0]}", file=sys.stderr)
        directory = archive.fresh(options.result_dir, options.date)
        night = begin(options, directory)
        archive.save(directory, night)
    except OSError as error:
        why = f"no night can be stored in {options.result_dir}: {error.strerror}"
        print(f"error: {why}. Make room, or name another --result-dir.", file=sys.stderr)
        return int(ExitCode.HARNESS)
    with Reserve(directory) as reserve:
        nightly = Nightly(options, directory, night, reserve)
        nightly.run()
        ignore_signals()
        nightly.conclude()
        nightly.save()
        _tell(nightly)
    return night.exit_code


def _tell(nightly: Nightly) -> None:
    """Everything that is made from the record. A failure is a reason in it, and no earlier result is lost."""
    options, night = nightly.options, nightly.night
    told = [
        lambda: write_summary(nightly.directory, night),
        lambda: _write(lambda: write_night(nightly.directory, night)),
        lambda: _append(options.result_dir / _LINES, night),
        lambda: _prune(options, night.name),
        lambda: _write(lambda: write_index(options.result_dir)),
    ]
    before = len(nightly.problems)
    for one in told:
        if error := _failure(nightly, one):
            nightly.problem(f"its report could not be written: {error}")
    if len(nightly.problems) > before:
        nightly.conclude()
        nightly.save()
    with suppress(OSError):
        point_at(archive.nights_dir(options.result_dir) / "latest", night.name)
    print(*lines_of(night), f"page: {options.result_dir / 'index.html'}", sep="\n")


def _failure(nightly: Nightly, report: Callable[[], None]) -> Exception | None:
    """Write one report; returns the error if it fails, a foreseen one or not."""
    try:
        return nightly.reserve.write(report)
    except Exception as error:  # noqa: BLE001 - a report that crashes must not cost the others, or the verdict
        traceback.print_exc()
        return error


def _write(page: Callable[[], Path]) -> None:
    page()


def _prune(options: Options, own: str) -> None:
    if options.keep is not None:
        for name in archive.prune(options.result_dir, options.keep, own):
            print(f"removed the night {name} (--keep {options.keep})")


def _append(path: Path, night: Night) -> None:
    """A line for each run, for a dashboard that reads such lines."""
    with path.open("a", encoding="utf-8") as file:
        for run in night.runs:
            line = {"night": night.name, "load": run.job, "repeat": run.repeat, "status": run.status}
            line |= {"exit_code": run.exit_code, "verdict": str(run.result), "commit": night.commit, **run.metrics}
            line |= {"run": run.directories[-1] if run.directories else None, "reasons": run.reasons}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
