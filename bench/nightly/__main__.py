"""The nightly job: a named list of loads against one deployment; exits with the worst verdict.

    python -m bench.nightly --result-dir nightly                           launches a deployment, ends it
    python -m bench.nightly --result-dir nightly --loads steady,burst
    python -m bench.nightly --result-dir nightly -- --base-url ... --prefill-url ... --decode-url ...

Words after ``--`` go to the harness: flags that launch, or flags that attach. Each load is one run in the result
directory, and adds a line to ``nightly.jsonl`` there, for a dashboard to read. A load counts as a failure of the
harness (4) if it was killed, if it ended with a status that is no exit code of the harness, or if the launched
deployment died meanwhile; after such a death no further load is run. SIGTERM ends the job as Ctrl-C does. However the
job ends, everything that it started ends too.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
from harness.cli.output import unfailing_output
from harness.errors import ExitCode

LOADS: Mapping[str, tuple[str, ...]] = {
    "steady": ("--num-prompts", "256", "--concurrency", "16"),
    "burst": ("--num-prompts", "256", "--concurrency", "128"),
    "short_prompts": ("--num-prompts", "256", "--concurrency", "32", "--random-input-len", "4:40"),
    "long_prompts": ("--num-prompts", "48", "--concurrency", "8", "--random-input-len", "800:2000"),
}
"""A changed load gets a new name, so that nights can be compared by name."""
_DIED = "the deployment that was launched for the loads died: nothing was found out"

_HARNESS = (sys.executable, "-m", "harness")
# Ends the command when this job ends, even by kill -9. The command has 60 seconds to end by itself.
_KEPT = (sys.executable, str(Path(harness.__file__).parent / "deploy" / "keeper.py"), "60")
_NOTICED = 2.0
"""Seconds within which ``serve`` notices that one of its servers died."""
_ATTACHING = {"--base-url", "--prefill-url", "--decode-url"}
_SIGNALS = 128
"""If a process is killed by signal N, its keeper ends with status 128 + N."""
_INDEX = "nightly.jsonl"
_WORST_FIRST = (ExitCode.HARNESS, ExitCode.USAGE, ExitCode.INVALID, ExitCode.UNKNOWN, ExitCode.VALID)
"""Exit codes, the worst first. A failed harness has checked nothing, which is worse than any verdict."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the loads; returns the worst exit code."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    statuses: list[int] = []
    with unfailing_output(), _sigterm_interrupts():
        try:
            _require_index(options.result_dir)
            _run_all(options, statuses)
        except KeyboardInterrupt:
            print(f"interrupted: earlier results are in {options.result_dir}", file=sys.stderr)
            statuses.append(ExitCode.UNKNOWN)
        except Exception as error:  # noqa: BLE001 - no unforeseen error may look like a verdict
            print(
                f"error: the nightly job itself failed: {type(error).__name__}: {error}. This says nothing about the "
                f"deployment. Earlier results are in {options.result_dir}.",
                file=sys.stderr,
            )
            statuses.append(ExitCode.HARNESS)
    return worst_code(statuses)


def worst_code(statuses: Sequence[int]) -> int:
    """The worst exit code. No status at all counts as a failure of the harness."""
    codes = [exit_code(status) for status in statuses] or [ExitCode.HARNESS]
    return next(code for code in _WORST_FIRST if code in codes)


def exit_code(status: int) -> int:
    """The exit code for a process's status; a negative status is the signal that killed it."""
    return status if status in _WORST_FIRST else ExitCode.HARNESS


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM act like Ctrl-C: end everything that was started, and report the results so far."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _require_index(result_dir: Path) -> None:
    """End the job before the first load if its index cannot be written."""
    try:
        result_dir.mkdir(parents=True, exist_ok=True)
        with (result_dir / _INDEX).open("a"):
            pass
    except OSError as error:
        why = f"{result_dir / _INDEX} cannot be written: {error.strerror}. Name another --result-dir."
        print(f"error: {why}", file=sys.stderr)
        sys.exit(ExitCode.USAGE)


@dataclass(frozen=True, slots=True)
class _Target:
    """The deployment that the loads are sent to."""

    flags: list[str]
    """Flags that attach to it."""
    held: "subprocess.Popen[str] | None" = None
    """The ``serve`` process that keeps it running during the job; None: it was running before."""

    def died(self, seconds: float = 0.0) -> bool:
        """Whether ``serve`` has ended by itself, or ends within ``seconds``."""
        if self.held is None:
            return False
        with suppress(subprocess.TimeoutExpired):
            self.held.wait(seconds)
        return self.held.poll() is not None


def _run_all(options: argparse.Namespace, statuses: list[int]) -> None:
    with _deployment(options.harness, options.result_dir) as target:
        for name in options.loads:
            print(f"== {name}", flush=True)
            statuses.append(_run(name, options.result_dir, target, options.seed))
            if target.died():
                why = f"the deployment that was launched for the loads died, at {name} at the latest"
                print(f"error: {why}. Its error is printed above. No further load is run.", file=sys.stderr)
                statuses.append(ExitCode.HARNESS)
                return


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    at = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="python -m bench.nightly", description=__doc__.partition("\n")[0])
    parser.add_argument("--result-dir", type=Path, required=True)
    parser.add_argument("--loads", type=_names, default=tuple(LOADS), help=f"some of {', '.join(LOADS)} (default: all)")
    # A new seed each night meets new prompts; the seed is in the result, so that a night can be repeated.
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    return parser.parse_args(argv[:at], argparse.Namespace(harness=list(argv[at + 1 :])))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in LOADS]:
        raise argparse.ArgumentTypeError(f"no load is called {', '.join(unknown)}; there are {', '.join(LOADS)}")
    return names


@contextmanager
def _deployment(words: list[str], result_dir: Path) -> Iterator[_Target]:
    """The deployment that the words attach to, or one that is launched for the length of the job."""
    if any(word.partition("=")[0] in _ATTACHING for word in words):
        yield _Target(words)
        return
    process = _start("serve", "--result-dir", str(result_dir), *words, stdout=subprocess.PIPE)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            # serve has printed the reason on stderr. It must not end by itself, so that even status 0 is a failure.
            sys.exit(exit_code(_status(process)) or ExitCode.HARNESS)
        yield _Target(_attach(json.loads(line)), process)
    finally:
        _end(process)


def _start(*words: str, stdout: int | None = None) -> "subprocess.Popen[str]":
    """Start a command of the harness, which ends with this job."""
    return subprocess.Popen(
        [*_KEPT, *_HARNESS, *words], stdin=subprocess.PIPE, stdout=stdout, text=True, start_new_session=True
    )


def _status(process: "subprocess.Popen[str]") -> int:
    """Wait for the status; a signal that killed the process is a negative number, as in subprocess."""
    status = process.wait()
    return _SIGNALS - status if status > _SIGNALS else status


def _end(process: "subprocess.Popen[str]") -> None:
    if process.stdin:
        process.stdin.close()
    process.wait()


def _attach(facts: Mapping[str, Any]) -> list[str]:
    flags = ["--base-url", facts["base_url"]] if facts["base_url"] else []
    flags += [word for url in facts["prefill_urls"] for word in ("--prefill-url", url)]
    return flags + [word for url in facts["decode_urls"] for word in ("--decode-url", url)]


def _run(name: str, result_dir: Path, target: _Target, seed: int) -> int:
    flags = [*LOADS[name], "--seed", str(seed), "--label", name, "--result-dir", str(result_dir), *target.flags]
    process = _start(*flags)
    try:
        status = _status(process)
    finally:
        # An interrupted run stores and reports its results so far.
        _end(process)
    line = _line(name, status, result_dir / "latest" / "result.json")
    if exit_code(status) and target.died(_NOTICED):
        line = {"load": name, "status": status, "exit_code": ExitCode.HARNESS, "error": _DIED}
    with (result_dir / _INDEX).open("a") as index:
        index.write(json.dumps(line) + "\n")
    return int(line["exit_code"])


def _line(name: str, status: int, file: Path) -> dict[str, Any]:
    """The load's line in the index; without a result, only the process's status and the exit code that counts."""
    line: dict[str, Any] = {"load": name, "status": status, "exit_code": exit_code(status)}
    if status not in _WORST_FIRST:
        line["error"] = f"the harness {_ended(status)}: nothing was found out"
    elif status in (ExitCode.VALID, ExitCode.INVALID, ExitCode.UNKNOWN) and file.exists():
        result = json.loads(file.read_text())
        keys = ("verdict", "date", "seed", "commit", "completed", "failed", "request_throughput", "p99_ttft_ms")
        line |= {key: result.get(key) for key in keys} | {"run": file.resolve().parent.name}
    return line


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}, which is none of its exit codes"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


if __name__ == "__main__":
    sys.exit(main())
