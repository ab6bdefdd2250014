"""The nightly job: a named list of loads against one deployment; exits with the worst verdict.

    python -m bench.nightly --result-dir nightly                           launches a deployment, ends it
    python -m bench.nightly --result-dir nightly --loads steady,burst
    python -m bench.nightly --result-dir nightly -- --base-url ... --prefill-url ... --decode-url ...

What follows ``--`` goes to the harness: flags that launch, or flags that attach. Each load is one run in the result
directory; ``nightly.jsonl`` there gains a line for each, for a dashboard to read. A load that was killed, or ended in
any other way than the harness ends, has told nothing: it counts as a failure of the harness (4).
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cli.output import unfailing_output

LOADS: Mapping[str, tuple[str, ...]] = {
    "steady": ("--num-prompts", "256", "--concurrency", "16"),
    "burst": ("--num-prompts", "256", "--concurrency", "128"),
    "short_prompts": ("--num-prompts", "256", "--concurrency", "32", "--random-input-len", "4:40"),
    "long_prompts": ("--num-prompts", "48", "--concurrency", "8", "--random-input-len", "800:2000"),
}
"""Each name stays what it is: a changed load is a new name, or nights could not be compared."""

_ATTACHING = {"--base-url", "--prefill-url", "--decode-url"}
_HARNESS_FAILED, _UNKNOWN = 4, 3
_WORST_FIRST = (_HARNESS_FAILED, 2, 1, 3, 0)
"""Exit codes by badness: a harness that failed looked at nothing, so it goes before any verdict."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the loads; the worst exit code among them."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    statuses: list[int] = []
    with unfailing_output():
        try:
            _run_all(options, statuses)
        except KeyboardInterrupt:
            print(f"interrupted: what was measured before is in {options.result_dir}", file=sys.stderr)
            statuses.append(_UNKNOWN)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not look like a verdict
            print(
                f"error: the nightly job itself failed: {type(error).__name__}: {error}. This says nothing about the "
                f"deployment. What was measured before is in {options.result_dir}.",
                file=sys.stderr,
            )
            statuses.append(_HARNESS_FAILED)
    return worst_code(statuses)


def worst_code(statuses: Sequence[int]) -> int:
    """The worst exit code; no status at all, or one that the harness does not have, is its failure."""
    codes = [exit_code(status) for status in statuses] or [_HARNESS_FAILED]
    return next(code for code in _WORST_FIRST if code in codes)


def exit_code(status: int) -> int:
    """The exit code that a process's status stands for; a negative status is the signal that killed it."""
    return status if status in _WORST_FIRST else _HARNESS_FAILED


def _run_all(options: argparse.Namespace, statuses: list[int]) -> None:
    with _deployment(options.harness, options.result_dir) as attach:
        for name in options.loads:
            print(f"== {name}", flush=True)
            statuses.append(_run(name, options.result_dir, attach, options.seed))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    mine, _, harness = _split(argv)
    parser = argparse.ArgumentParser(prog="python -m bench.nightly", description=__doc__.partition("\n")[0])
    parser.add_argument("--result-dir", type=Path, required=True)
    parser.add_argument("--loads", type=_names, default=tuple(LOADS), help=f"of {', '.join(LOADS)} (default: all)")
    # A new seed each night meets new prompts; the seed is in the result, so that a night can be repeated.
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    return parser.parse_args(mine, argparse.Namespace(harness=list(harness)))


def _split(argv: Sequence[str]) -> tuple[Sequence[str], str, Sequence[str]]:
    at = list(argv).index("--") if "--" in argv else len(argv)
    return argv[:at], "--", argv[at + 1 :]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in LOADS]:
        raise argparse.ArgumentTypeError(f"no load is called {', '.join(unknown)}; there are {', '.join(LOADS)}")
    return names


@contextmanager
def _deployment(harness: list[str], result_dir: Path) -> Iterator[list[str]]:
    """Flags that attach: those given, or those of a deployment held up for the length of the job."""
    if any(word.partition("=")[0] in _ATTACHING for word in harness):
        yield harness
        return
    command = [sys.executable, "-m", "harness", "serve", "--result-dir", str(result_dir), *harness]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            # It has said on stderr why. That it was not valid is certain: it is to hold until it is ended.
            sys.exit(exit_code(process.wait()) or _HARNESS_FAILED)
        yield _attach(json.loads(line))
    finally:
        process.terminate()
        process.communicate()


def _attach(facts: Mapping[str, Any]) -> list[str]:
    flags = ["--base-url", facts["base_url"]] if facts["base_url"] else []
    flags += [word for url in facts["prefill_urls"] for word in ("--prefill-url", url)]
    return flags + [word for url in facts["decode_urls"] for word in ("--decode-url", url)]


def _run(name: str, result_dir: Path, attach: Sequence[str], seed: int) -> int:
    flags = [*LOADS[name], "--seed", str(seed), "--label", name, "--result-dir", str(result_dir), *attach]
    status = subprocess.run([sys.executable, "-m", "harness", *flags], check=False).returncode
    with (result_dir / "nightly.jsonl").open("a") as index:
        index.write(json.dumps(_line(name, status, result_dir / "latest" / "result.json")) + "\n")
    return status


def _line(name: str, status: int, file: Path) -> dict[str, Any]:
    """What a dashboard plots; where no result was written, the status says why.

    ``status`` is the process's, ``exit_code`` what it counts as.
    """
    line: dict[str, Any] = {"load": name, "status": status, "exit_code": exit_code(status)}
    if status not in _WORST_FIRST:
        line["error"] = f"the harness {_ended(status)}: it has found nothing out"
    elif status in (0, 1, 3) and file.exists():
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
