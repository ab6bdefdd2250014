"""``python -m harness shrink RUN_DIR``: a failing run reduced to the least that still fails, on a live deployment.

1. The stored run is judged again; what is ``invalid`` there is what a smaller load must show again.
2. Its whole load is run again. If it does not fail, that is said, and the exit code is 3 (unknown).
3. The search (:mod:`harness.shrink`) tries smaller loads, each up to ``--tries`` times.
4. The result is run ``--confirm`` times, as ``run --verify all`` would run it, and stored as a run of its own.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

from harness.cli.attempts import Attempts, Tried
from harness.cli.check import Rejudged, rejudge, run_started
from harness.cli.options import LoadOptions, Options, ShrinkOptions
from harness.cli.reproducer import Reproducer, print_reproducer, store_reproducer
from harness.cli.shrink_target import Chosen, choose_target
from harness.cli.stored import stored_run
from harness.clock import MonotonicClock
from harness.deploy import Surroundings, open_session
from harness.errors import ExitCode, HarnessError, UsageError
from harness.facts import Deployment
from harness.reports import Progress, make_progress
from harness.reports.text import duration
from harness.shrink import Candidate, FailingLoad, Limits, Shrinker, failing_load_of, tries_for
from harness.shrink.failing_load import invalid
from harness.store import RunStore
from harness.verify.judging import tier_suspected

PROBE_TIERS = "--probe-tiers"
_FIRST = 5
"""Runs of the whole load in which it must fail again, unless --tries says otherwise."""
_FALLBACKS = 4
"""Results that are confirmed, where one after the other does not fail again: a fault may depend on what was before."""
_STEPS_BACK = (2, 4, 8, 1 << 30)
"""Which of the candidates that failed, counted from the smallest, is looked at where the smallest fails rarely."""
_SILENT = 3
"""Tries in a row without an answer after which the deployment counts as gone."""
_BLOCK = 16
"""Tokens; where no server tells its block size."""


async def shrink(options: Options) -> ExitCode:
    """INVALID where a reproducer was found, UNKNOWN where the load did not fail again."""
    if options.run_dir is None or options.shrink is None:
        raise UsageError("shrink needs the directory of a run: python -m harness shrink runs/latest.")
    run = rejudge(options.run_dir)
    case = failing_load_of(run.deployment, run.history, run.report.judgement)
    chosen = await choose_target(options, run.deployment, run_started(run.history).argv)
    clock = MonotonicClock()
    with stored_run(options, label="shrink", latest=False) as store:
        with make_progress(plain=options.report.plain, clock=clock) as progress:
            progress.note(f"{options.run_dir}: {case.scenario}: {', '.join(case.checks)} invalid; {case.whole}")
            progress.note(chosen.why)
            around = Surroundings(store.path, clock, progress.deploy)
            async with open_session(chosen.target, around) as session:
                deployment = _known(session.deployment, run.deployment) if chosen.same else session.deployment
                store.save_deployment(deployment)
                load = _allowed(options.load, chosen, run_started(run.history).argv)
                if why := _left_out(run, deployment, load):
                    progress.note(why)
                told = _Teller(progress, store)
                how = replace(options, target=chosen.target).firing
                attempts = Attempts(case, session, deployment, load, how, clock, told)
                shrinking = _Shrinking(options.shrink, case, attempts, progress)
                await shrinking.run(run_started(run.history).seed)
        return _end(replace(options, load=load), run, chosen, store, shrinking)


def _allowed(load: LoadOptions, chosen: Chosen, argv: tuple[str, ...]) -> LoadOptions:
    """Whoever let a run empty the prefix caches of these servers lets its shrinking do so."""
    return replace(load, probe_tiers=load.probe_tiers or (chosen.same and PROBE_TIERS in argv))


def _left_out(run: Rejudged, deployment: Deployment, load: LoadOptions) -> str:
    """Why what failed in the stored run will not be asked for again; empty where it will."""
    if deployment.launched or load.probe_tiers or not tier_suspected(run.history):
        return ""
    return (
        "what an offload tier answered wrong in the stored run is not asked for again: that takes emptying the prefix "
        f"caches of servers that the harness did not launch, which {PROBE_TIERS} allows"
    )


def _known(learned: Deployment, stored: Deployment) -> Deployment:
    """What could not be learned again stands as the run knew it: they are the same servers."""
    missing = {one.name: getattr(stored, one.name) for one in fields(Deployment) if getattr(learned, one.name) is None}
    if not learned.special_token_ids:
        missing |= {
            name: getattr(stored, name) for name in ("special_token_ids", "vocab_is_whole", "end_tokens_complete")
        }
    return replace(learned, **missing)


@dataclass(slots=True)
class _Teller:
    """A line for each try, and one in tries.jsonl."""

    progress: Progress
    store: RunStore
    number: int = 0

    def __call__(self, tried: Tried) -> None:
        self.number += 1
        self.progress.note(f"try {self.number}: {tried.candidate}: {_outcome(tried)} ({duration(tried.seconds)})")
        with (self.store.path / "tries.jsonl").open("a") as kept:
            kept.write(json.dumps(_as_json(self.number, tried)) + "\n")


def _outcome(tried: Tried) -> str:
    if tried.failed:
        return f"fails ({', '.join(invalid(tried.judgement))})"
    others = invalid(tried.judgement)
    words = [f"only {', '.join(others)} invalid"] if others else []
    words += [f"{', '.join(tried.unsure)} unknown"] if tried.unsure else []
    return f"does not fail ({'; '.join(words)})" if words else "does not fail"


def _as_json(number: int, tried: Tried) -> dict[str, object]:
    pieces = tried.candidate.pieces
    return {
        "try": number,
        "requests": [piece.number for piece in pieces],
        "prompt_tokens": [piece.prompt for piece in pieces],
        "output_tokens": [piece.output for piece in pieces],
        "concurrency": tried.candidate.concurrency,
        "seed": tried.seed,
        "failed": tried.failed,
        "invalid": list(invalid(tried.judgement)),
        "seconds": round(tried.seconds, 3),
    }


@dataclass(slots=True)
class _Shrinking:
    """Steps 2 to 4; keeps what was found, also when it is cancelled."""

    options: ShrinkOptions
    case: FailingLoad
    attempts: Attempts
    progress: Progress
    runs: int = 0
    """Of the whole load."""
    shrinker: Shrinker | None = None
    found: dict[Candidate, Tried] = field(default_factory=dict)
    """The last failing try of each candidate that failed."""
    best: Tried | None = None
    confirmed: tuple[int, int] = (0, 0)
    """How often the best failed, of how many runs."""
    stopped: str = ""
    """Why it did not come to its end."""
    broken: HarnessError | None = None
    _silent: int = 0

    async def run(self, seed: int) -> None:
        """All of it; a cancellation ends it early and is not passed on."""
        try:
            if await self._fails_again(seed):
                await self._search()
        except asyncio.CancelledError:
            self._stop("it was interrupted")
        except HarnessError as error:
            self.broken = error
            self._stop("the deployment failed underneath it")

    def _stop(self, why: str) -> None:
        self.stopped = why
        if not self.confirmed[0] and self.shrinker is not None:
            self.best, self.confirmed = self.found.get(self.shrinker.best), (0, 0)

    async def _fails_again(self, seed: int) -> bool:
        """Step 2. Narrows the case to what is seen again, where only a part of it is."""
        most, partly = self.options.tries or _FIRST, None
        while self.runs < most:
            self.runs += 1
            tried = await self.attempts.whole(self.case.whole, seed if self.runs == 1 else None)
            if tried.failed:
                break
            if set(invalid(tried.judgement)) & set(self.case.checks):
                partly = tried
        else:
            if partly is None:
                return False
            tried = partly
            kept = tuple(name for name in self.case.checks if name in invalid(tried.judgement))
            self.progress.note(f"of {', '.join(self.case.checks)} only {', '.join(kept)} failed again: that is shrunk")
            self.case = self.attempts.case = replace(self.case, checks=kept)
        self.case = self.attempts.case = self.case.seen_again(tried.judgement)
        self.found[self.case.whole] = tried
        self.attempts.learn(tried)
        return True

    async def _search(self) -> None:
        """Step 3."""
        tries = self.options.tries or tries_for(self.runs)
        self.progress.note(
            f"the whole load failed in run {self.runs}: each candidate is tried up to {tries} times, "
            f"{self.options.most} tries in all"
        )
        clock, began = self.attempts.clock, self.attempts.clock.now()
        limits = Limits(tries, self.options.most, lambda: clock.now() - began > self.options.seconds)
        self.shrinker = Shrinker(self.case.whole, self._attempt, limits)
        sizes = [server.block_size for server in self.attempts.deployment.servers if server.block_size]
        cutting = self.case.cutting(max(sizes, default=_BLOCK))
        await self.shrinker.run(self.case.hints(), cutting)
        for _ in range(_FALLBACKS):
            if await self._confirm(self.shrinker.best) or not self.shrinker.disown():
                break
            self.progress.note("the smallest did not fail again: the search goes on from the one before")
            await self.shrinker.run((), cutting)
        if not self.shrinker.complete:
            self.stopped = "its limits were reached (--max-tries, --time-budget-sec)"
        await self._step_back(self.shrinker.accepted)

    async def _step_back(self, accepted: list[Candidate]) -> None:
        """To a larger one that fails at least every other time: of a rare fault the smallest load shows too little."""
        for step in _STEPS_BACK:
            failed, runs = self.confirmed
            if 2 * failed >= runs or step // 2 >= len(accepted):
                return
            self.progress.note(f"it failed {failed} of {runs} times: a larger one may do so more often")
            await self._confirm(accepted[-min(step, len(accepted))])

    async def _attempt(self, candidate: Candidate) -> bool:
        tried = await self.attempts.quick(candidate)
        if tried.failed:
            self.found[candidate] = tried
        self._silent = 0 if tried.completed or "completion" in self.case.checks else self._silent + 1
        if self._silent >= _SILENT:
            raise HarnessError(f"{self._silent} tries in a row had no answer: the deployment seems to be gone.")
        return tried.failed

    async def _confirm(self, candidate: Candidate) -> bool:
        """Step 4: how often it fails, in runs as ``run`` makes them; whether it does at all. Keep the best of these."""
        last, failed, known = self.found[candidate], 0, self.confirmed[0] > 0
        for number in range(self.options.confirm):
            tried = await self.attempts.whole(candidate, self.found[candidate].seed)
            if tried.failed:
                last, failed = tried, failed + 1
            if not known:
                self.best, self.confirmed = last, (failed, number + 1)
        if failed > self.confirmed[0]:
            self.best, self.confirmed = last, (failed, self.options.confirm)
        return failed > 0


def _end(options: Options, run: Rejudged, chosen: Chosen, store: RunStore, shrinking: _Shrinking) -> ExitCode:
    if shrinking.best is None:
        for line in _nothing_found(run, shrinking):
            print(line)
        if shrinking.broken is not None:
            raise shrinking.broken
        return ExitCode.UNKNOWN
    reproducer = Reproducer(
        case=shrinking.case,
        tried=shrinking.best,
        deployment=shrinking.attempts.deployment,
        chosen=chosen,
        load=options.load,
        confirmed=shrinking.confirmed,
        story=tuple(_story(shrinking)),
    )
    store_reproducer(reproducer, store)
    print_reproducer(reproducer, store.path)
    if shrinking.broken is not None:
        raise shrinking.broken
    return ExitCode.INVALID if shrinking.confirmed[0] or not shrinking.confirmed[1] else ExitCode.UNKNOWN


def _nothing_found(run: Rejudged, shrinking: _Shrinking) -> Iterator[str]:
    was = ", ".join(shrinking.case.checks)
    if shrinking.stopped:
        yield f"UNKNOWN: nothing was found before it ended: {shrinking.stopped}"
    else:
        yield (
            f"UNKNOWN: it does not fail any more: {was} invalid in the stored run, and in none of {shrinking.runs} "
            f"runs of its whole load ({shrinking.case.whole})"
        )
        yield (
            "  The fault may be rare (more runs: --tries N), depend on what the servers had done before, or be gone. "
            f"The stored run stays {run.report.judgement.verdict}."
        )


def _story(shrinking: _Shrinking) -> Iterator[str]:
    """How it was come by, for result.json and the reader."""
    yield f"from {shrinking.case.whole}, which failed again in run {shrinking.runs}"
    shrinker = shrinking.shrinker
    if shrinker is not None:
        each = shrinking.options.tries or tries_for(shrinking.runs)
        yield f"{shrinker.tries} tries, up to {each} of each candidate"
        best = shrinking.best.candidate if shrinking.best else None
        if best != shrinker.best:
            yield f"smaller ones failed more rarely: {shrinker.best}"
        elif shrinker.complete:
            yield "nothing one step smaller failed"
    if shrinking.stopped:
        yield f"the search was not finished: {shrinking.stopped}"
