"""Measures what a history costs: memory, and CPU time to record it, to read it back and to fold over it.

Each row is of two fresh processes: one records a made-up run as the runner does, with a journal, and one reads it. The
requests have 200 prompt tokens and 16 to 128 output tokens with two to five log-probabilities each.

    python -m bench.history 1000 10000 100000

``recording`` and the other steps are CPU microseconds per operation, writing to the disk included; ``in the loop`` is
the part of it that the caller of ``record`` waits for. Memory is the process's peak resident set less that of the same
process before. A second run at the same moment makes the figures worse: compare two versions in turn.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.history import Choice, Ended, Entry, History, Outcome, Sent, TokenLogprob, Usage
from harness.run.recorder import Recorder
from harness.scenario import Request, Sampling
from harness.store import JournalWriter, read_journal

_PROMPT = 200
_SHORTEST, _LONGEST = 16, 128
_RATE = 1000.0
"""Requests per second of the made-up run."""
_SALT = "run"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of ``operations``: CPU seconds and bytes of each step."""

    operations: int
    seconds: dict[str, float]
    recording_bytes: int = 0
    reading_bytes: int = 0
    journal_bytes: int = 0

    def row(self) -> str:
        """One line of the table."""
        each = "  ".join(f"{1e6 * value / self.operations:9.1f}" for value in self.seconds.values())
        sizes = (self.journal_bytes, self.recording_bytes, self.reading_bytes)
        return f"{self.operations:10,}  {each}  " + "  ".join(f"{size / self.operations:9,.0f}" for size in sizes)


def _entries(operations: int) -> Iterator[Entry]:
    rng = np.random.default_rng(0)
    for number in range(operations):
        at, name = number / _RATE, f"load-{number:06d}"
        prompt = tuple(rng.integers(300, 30_000, _PROMPT).tolist())
        tokens = tuple(rng.integers(300, 30_000, rng.integers(_SHORTEST, _LONGEST, endpoint=True)).tolist())
        request = Request(name, prompt, Sampling(max_tokens=len(tokens), logprobs=5), cache_salt=_SALT)
        yield Sent(at, request, "random_load", "load", at)
        yield _ended(rng, at, name, tokens)


def _ended(rng: np.random.Generator, at: float, name: str, tokens: tuple[int, ...]) -> Ended:
    # As a server reports them: float32 values.
    best, second, third = -rng.exponential(1.0, (3, len(tokens))).astype(np.float32).astype(float).cumsum(axis=0)
    others = rng.integers(300, 30_000, (2, len(tokens))).tolist()
    rows = tuple(map(TokenLogprob, tokens, best.tolist(), second.tolist(), others[0], third.tolist(), others[1]))
    first = tuple((token, -0.5 * place - 0.125) for place, token in enumerate(tokens[:5]))
    return Ended(
        at + 1.0,
        name,
        Outcome.OK,
        status=200,
        choices=(Choice(tokens, " word" * len(tokens), "length", rows),),
        usage=Usage(_PROMPT, len(tokens)),
        token_times=tuple((at + np.sort(rng.random(len(tokens)))).tolist()),
        tokens_per_chunk=(1,) * len(tokens),
        prefill_server="http://127.0.0.1:8100",
        decode_server="http://127.0.0.1:8200",
        first_logprobs=first,
        prefill_first=first,
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def record(operations: int, path: Path) -> Cost:
    """Record a run at ``path``. The time in which its entries are made up is not counted."""
    before, making, waiting = _peak(), 0.0, 0.0
    began = time.process_time()
    with JournalWriter(path) as journal:
        recorder, entries = Recorder(journal.record), _entries(operations)
        while True:
            made, entry = -time.thread_time(), next(entries, None)
            making += made + time.thread_time()
            if entry is None:
                break
            waiting -= time.thread_time()
            recorder(entry)
            waiting += time.thread_time()
            # As an event loop does whenever it asks for what has arrived, this lets the writer's thread run.
            time.sleep(0)
    seconds = {"recording": time.process_time() - began - making, "in the loop": waiting}
    return Cost(operations, seconds, _peak() - before, journal_bytes=path.stat().st_size)


_FOLDS: dict[str, Callable[[History], object]] = {
    "outcomes": lambda history: sum(o.outcome is Outcome.OK and o.request.of_load for o in history.operations()),
    "prompts": lambda history: sum(len(o.prompt_token_ids or ()) for o in history.operations()),
    "times": lambda history: sum(o.ended.token_times[0] - o.sent.at for o in history.operations()),
    "answers": lambda history: sum(len(o.ended.choices[0].logprobs) for o in history.operations()),
}
"""Each asks every operation once for what a checker asks for."""


def read(operations: int, path: Path) -> Cost:
    """Read the run at ``path`` and fold over it."""
    before, seconds = _peak(), {}
    began = time.process_time()
    history = History(tuple(read_journal(path)))
    seconds["reading"] = time.process_time() - began
    for name, fold in _FOLDS.items():
        began = time.process_time()
        fold(history)
        seconds[name] = time.process_time() - began
    return Cost(operations, seconds, reading_bytes=_peak() - before)


def measure(operations: int, directory: Path) -> Cost:
    """The cost of a run with so many operations."""
    path, fresh = directory / f"{operations}.jsonl", multiprocessing.get_context("spawn")
    costs = []
    for step in (record, read):
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            costs.append(pool.submit(step, operations, path).result())
    recorded, back = costs
    path.unlink()
    seconds = recorded.seconds | back.seconds
    return Cost(operations, seconds, recorded.recording_bytes, back.reading_bytes, recorded.journal_bytes)


def main() -> None:
    """Print a row for each number of operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", type=int, default=[1000, 10_000])
    steps = ("recording", "in the loop", "reading", *_FOLDS)
    print("CPU microseconds, then bytes, per operation")
    print(f"{'operations':>10}  " + "  ".join(f"{name:>9.9}" for name in (*steps, "on disk", "recorded", "read back")))
    with tempfile.TemporaryDirectory() as directory:
        for operations in parser.parse_args().operations:
            print(measure(operations, Path(directory)).row(), flush=True)


if __name__ == "__main__":
    main()
