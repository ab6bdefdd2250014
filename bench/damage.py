"""Damages a known share of real requests and counts which of them the harness names, and whom it names falsely.

    python -m bench.damage --out damage --seeds 5 --clean                 launches a pair, ends it
    python -m bench.damage --out damage --mixed --requests 300            all kinds of damage in one run
    python -m bench.damage --out damage --state-file state.json --sabotage DIR -- --random-input-len 800:2000

Words after ``--`` go to each run of the harness; ``{seed}`` in them becomes the run's seed. To attach, start the decode
server with the damage plugin, with the same DIR:

    env $(python -m bench.damage --environment --sabotage DIR) python -m harness serve --state-file state.json

DIR is a directory on the decode server's own machine. Each run is one row: on the terminal, in OUT/results.json and in
OUT/index.md, which says what the columns mean; both are written anew after each run. Exit code 0 if every damaged
request was named and nobody else, and each clean run is valid; 1 otherwise; 4 if a run ended without a result.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import damage_page
from bench.damage_flags import Planned, parse, plan
from bench.damage_row import Row, row
from bench.damage_sharing import sharing_in
from bench.sabotage import Saboteur
from harness.errors import ExitCode

_HARNESS = (sys.executable, "-m", "harness")
_ENDING = 60
"""Seconds that an interrupted harness has for writing its result."""


def main(argv: Sequence[str] | None = None) -> int:
    """Make all runs; returns the exit code."""
    options = parse(__doc__, sys.argv[1:] if argv is None else argv)
    saboteur = Saboteur(options.sabotage or options.out / "sabotage")
    if options.environment:
        print(" ".join(f"{name}={value}" for name, value in saboteur.variables.items()))
        return ExitCode.VALID
    options.out.mkdir(parents=True, exist_ok=True)
    saboteur.directory.mkdir(parents=True, exist_ok=True)
    with _pair(options, saboteur) as state:
        rows = _run_all(options, saboteur, state)
    print("", *damage_page.totals(rows), sep="\n")
    if any(one.verdict == "none" for one in rows):
        return ExitCode.HARNESS
    return ExitCode.VALID if all(one.as_expected for one in rows) else ExitCode.INVALID


@contextmanager
def _pair(options: argparse.Namespace, saboteur: Saboteur) -> Iterator[Mapping[str, Any]]:
    """The URLs of the pair to attach to, or of one that is launched meanwhile."""
    if options.state_file:
        yield json.loads(options.state_file.read_text())
    elif options.decode_url:
        names = ("base_url", "prefill_urls", "decode_urls")
        yield dict(zip(names, (options.base_url, options.prefill_url, options.decode_url), strict=True))
    else:
        command = [*_HARNESS, "serve", "--result-dir", str(options.out / "serve"), *shlex.split(options.launch)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=saboteur.environment)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                sys.exit(f"no pair was launched: harness serve ended with status {process.wait()}")
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait(timeout=_ENDING)


def _run_all(options: argparse.Namespace, saboteur: Saboteur, state: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    facts: dict[str, str] = {}
    print(damage_page.heading(), flush=True)
    for planned in plan(options):
        empty_caches(state)
        made, result = _run(options, planned, saboteur, state)
        rows.append(made)
        print(damage_page.line(made), flush=True)
        facts = _facts(options, result) or facts
        _write(options, facts, rows)
    return rows


def _run(
    options: argparse.Namespace, planned: Planned, saboteur: Saboteur, state: Mapping[str, Any]
) -> tuple[Row, Mapping[str, Any]]:
    """One run; the result is empty if it wrote none."""
    folder = options.out / f"{planned.name}-{planned.seed}"
    # Left by an earlier bench in the same directory.
    (folder / "latest").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    load = ["--num-prompts", str(options.requests), "--concurrency", str(options.concurrency)]
    load += ["--seed", str(planned.seed), *(["--verify", options.verify] if options.verify else [])]
    load += [word.replace("{seed}", str(planned.seed)) for word in options.words]
    started = time.monotonic()
    with (
        saboteur.striking(planned.kinds, one_in=options.one_in, seed=planned.seed),
        (folder / "output.txt").open("w") as output,
    ):
        command = [*_HARNESS, *load, *_attach(state), "--plain", "--result-dir", str(folder)]
        status = _within(options.limit_sec, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
    seconds = time.monotonic() - started
    saboteur.keep_ledger(folder / "ledger.jsonl")
    file = folder / "latest" / "result.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    blows = saboteur.blows()
    sharing = sharing_in(file.parent, blows) if result else {}
    made = row(planned.name, planned.seed, result, blows, exit_code=status, seconds=seconds, sharing=sharing)
    return made, result


def _within(limit: float, process: "subprocess.Popen[bytes]") -> int:
    """The process's status; after ``limit`` seconds it is interrupted, and writes what it has found so far."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait(_ENDING)
    finally:
        if process.poll() is None:
            process.kill()


def _attach(state: Mapping[str, Any]) -> list[str]:
    flags = ["--base-url", state["base_url"]] if state.get("base_url") else []
    flags += [word for url in state["prefill_urls"] for word in ("--prefill-url", url)]
    return flags + [word for url in state["decode_urls"] for word in ("--decode-url", url)]


def empty_caches(state: Mapping[str, Any]) -> None:
    """Empty the servers' caches, which may hold damaged blocks. Raises OSError if a server does not do so."""
    for url in (*state["prefill_urls"], *state["decode_urls"]):
        reset = f"{url}/reset_prefix_cache?reset_external=true"
        request = urllib.request.Request(reset, method="POST")  # noqa: S310 - the user's own server
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - likewise


def _facts(options: argparse.Namespace, result: Mapping[str, Any]) -> dict[str, str]:
    """What the page says above the runs; empty without a result."""
    if not result:
        return {}
    deployment = result["deployment"]
    return {
        "machine": _machine(),
        "engine": f"vLLM {deployment['version']} on {deployment['device']}, connectors "
        f"{_connectors(deployment['connector'])}, block size {deployment['block_size']}, "
        f"model {Path(result['model_id']).name}",
        "harness": f"{result['harness_version']}, commit {options.commit or result['commit'] or 'unknown'}, Python "
        f"{platform.python_version()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": f"{options.requests} requests at concurrency {options.concurrency}, damage in 1 of {options.one_in}, "
        f"--verify {options.verify or '(default)'}" + (f", {shlex.join(options.words)}" if options.words else ""),
    }


def _connectors(names: Any) -> str:
    """The servers' common list of connectors; what each server has if they differ."""
    return ", ".join(names) if isinstance(names, list) else str(names)


def _machine() -> str:
    """Processor and GPUs, without the machine's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        gpus = []
    return ", ".join([f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}", *gpus])


def _write(options: argparse.Namespace, facts: Mapping[str, str], rows: Sequence[Row]) -> None:
    content = {"facts": facts, "runs": [one.as_json() for one in rows], "totals": damage_page.totals(rows)}
    (options.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "index.md").write_text(damage_page.page(options.title, facts, rows))


if __name__ == "__main__":
    sys.exit(main())
