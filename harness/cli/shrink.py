"""``python -m harness shrink RUN_DIR``: reduces a failing run to the smallest load that still fails.

The stored run is judged again. A smaller load must make the same checks ``invalid`` on a running deployment, which
:mod:`harness.cli.shrink_target` chooses. The search itself is in :mod:`harness.shrink.shrinking`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

from harness.cli.options import Options, parse
from harness.cli.rejudged import rejudge
from harness.cli.shrink_target import Chosen, choose_target
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.errors import ExitCode, UsageError
from harness.facts import Deployment
from harness.history import History
from harness.loads.dataset import NAME as DATASET
from harness.loads.dataset import DatasetLoad
from harness.reports import Report, make_progress, make_report
from harness.reports.measured import run_started
from harness.run import run_started_now
from harness.shrink import failing_load_of
from harness.shrink.attempts import Attempts
from harness.shrink.reproducer import FILE, SCRIPT, Reproducer
from harness.shrink.shrinking import Shrinking
from harness.store import RunStore
from harness.verify.judging import tier_suspected

_PROBE_TIERS = "--probe-tiers"
_TIMES_UNKNOWN = (
    "whether the run sent its requests at fixed times cannot be told from its command line any more: they are sent as "
    "a closed loop, so a fault that needs those times will not be found"
)
_PRINTED = 6000
"""Characters. A longer script, with prompts of thousands of tokens, is stored and not printed."""


async def shrink(options: Options) -> ExitCode:
    """INVALID if a reproducer was found, UNKNOWN if the load did not fail again."""
    if options.run_dir is None or options.shrink is None:
        raise UsageError("shrink needs the directory of a run: python -m harness shrink runs/latest.")
    run = rejudge(options.run_dir)
    started = run_started(run.history)
    scheduled = _scheduled(started.argv)
    case = failing_load_of(run.deployment, run.history, run.judgement, scheduled=scheduled or False)
    chosen = await choose_target(options, run.deployment, started.argv)
    clock = MonotonicClock()
    with stored_run(options, label="shrink", latest=False) as store:
        with make_progress(plain=options.report.plain, clock=clock) as progress:
            progress.note(f"{options.run_dir}: {case.scenario}: {', '.join(case.checks)} invalid; {case.whole}")
            if scheduled is None:
                progress.note(_TIMES_UNKNOWN)
            progress.note(chosen.why)
            async with open_session(chosen.target, Surroundings(store.path, clock, progress)) as session:
                deployment = _known(session.deployment, run.deployment) if chosen.same else session.deployment
                store.save_deployment(deployment)
                # If the run was allowed to empty the prefix caches of these servers, the tries are, too.
                allowed = options.verification.probe_tiers or (chosen.same and _PROBE_TIERS in started.argv)
                if not (deployment.launched or allowed) and tier_suspected(run.history):
                    progress.note(
                        "the tries do not look for wrong answers from an offload tier: this would empty the prefix "
                        f"caches of servers that the harness did not launch. Give {_PROBE_TIERS} to allow it"
                    )
                attempts = Attempts(
                    case=case,
                    deployment=deployment,
                    sending=replace(options.sending, headers=chosen.target.headers),
                    verify=replace(options.verify(deployment, salt=""), probe_tiers=deployment.launched or allowed),
                    clock=clock,
                    observer=progress,
                    keep=_keeping(store.path / "tries.jsonl"),
                    died=session.died,
                )
                shrinking = Shrinking(options.shrink, attempts)
                await shrinking.run(started.seed)
        return _end(run, chosen, store, shrinking)


def _scheduled(argv: tuple[str, ...]) -> bool | None:
    """Whether the run sent requests at fixed times: at a rate, by a trace, as turns of sessions with think times.

    None: not known any more, because words of the command line were redacted, or the dataset is gone.
    """
    try:
        # The parser prints what is wrong with the words, which are not those of this command.
        with redirect_stderr(StringIO()):
            load = parse(argv).load
        of_file = isinstance(load, DatasetLoad) and any(line.at is not None for line in load.lines)
    except (UsageError, SystemExit):
        return None
    return of_file or load.is_open or load.turns > 1 or load.think_time != (0.0, 0.0)


def _known(learned: Deployment, stored: Deployment) -> Deployment:
    """The deployment, completed with facts of the stored run, which had the same servers."""
    missing = {one.name: getattr(stored, one.name) for one in fields(Deployment) if getattr(learned, one.name) is None}
    if not learned.special_token_ids:
        missing |= {
            name: getattr(stored, name) for name in ("special_token_ids", "vocab_is_whole", "end_tokens_complete")
        }
    return replace(learned, **missing)


def _keeping(path: Path) -> Callable[[Mapping[str, Any]], None]:
    def keep(tried: Mapping[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(tried) + "\n")

    return keep


def _end(run: Report, chosen: Chosen, store: RunStore, shrinking: Shrinking) -> ExitCode:
    if shrinking.best is None:
        for line in _nothing_found(run, shrinking):
            print(line)
    else:
        attachment = chosen.target.attachment
        reproducer = Reproducer(
            case=shrinking.case,
            tried=shrinking.best,
            deployment=shrinking.attempts.deployment,
            where=chosen.words,
            attached=attachment is not None,
            base_url=attachment.base_url if attachment else None,
            sending=shrinking.attempts.sending,
            probe_tiers=shrinking.attempts.verify.probe_tiers and attachment is not None,
            confirmed=shrinking.confirmed,
            story=tuple(shrinking.story()),
        )
        _store(reproducer, store)
        _print(reproducer, store.path)
    if shrinking.broken is not None:
        raise shrinking.broken
    failed, runs = shrinking.confirmed
    return ExitCode.INVALID if shrinking.best is not None and (failed or not runs) else ExitCode.UNKNOWN


def _nothing_found(run: Report, shrinking: Shrinking) -> Iterator[str]:
    if shrinking.stopped:
        yield f"UNKNOWN: the search ended before it found a load that fails: {shrinking.stopped}"
        return
    yield (
        f"UNKNOWN: the load does not fail any more: {', '.join(shrinking.case.checks)} invalid in the stored run, "
        f"and in none of {shrinking.runs} new runs of its whole load ({shrinking.case.whole})"
    )
    yield (
        "  The fault may be rare (give more tries with --tries N), depend on earlier requests to these servers, or be "
        f"repaired. The verdict of the stored run stays {run.judgement.verdict}."
    )


def _store(reproducer: Reproducer, store: RunStore) -> None:
    """Write the dataset and the script, and the failing try as the history and the result of this directory."""
    tried, directory = reproducer.tried, store.path
    store.save_text(FILE, reproducer.dataset)
    store.save_text(SCRIPT, reproducer.script(directory))
    started = run_started_now(reproducer.command(directory), seed=tried.seed, names=(DATASET,))
    history = History((started, *tried.history.entries))
    for entry in history.entries:
        store.record(entry)
    report = make_report(reproducer.deployment, history, tried.judgement, directory)
    store.save_result(report.result | {"shrink": reproducer.as_json})


def _print(reproducer: Reproducer, directory: Path) -> None:
    failed, runs = reproducer.confirmed
    print(f"{'UNKNOWN' if runs and not failed else 'REPRODUCED'}: {reproducer.headline}")
    for line in (*reproducer.failing, *reproducer.story):
        print(f"  {line}")
    text = reproducer.script(directory)
    print(f"\nwith the harness:\n  {reproducer.shown_command(directory)}")
    print(f"\nwith curl, for a bug report ({directory / SCRIPT}):")
    print(text if len(text) <= _PRINTED else "  the prompts are long: see the file\n")
    print(f"stored: {directory}")
