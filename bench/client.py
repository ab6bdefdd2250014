"""Measures how many streams per second one core of the client can read, beside other clients of the same stub.

    python -m bench.client
    python -m bench.client --beside ../an-older-checkout --rounds 5
    python -m bench.client --chat

``vllm bench serve`` takes part where vLLM is installed beside this Python.

Every client runs in its own process on one core and the stub (``bench.stub``) on another; the clients take turns, round
by round, and medians are printed. A client does all that it does in a run: it writes the body, stamps each read, reads
ids, texts and log-probabilities, decides the outcome and makes the entry of the history. ``streams/s`` is wall time and
ends at what the stub can serve, which the bare reader shows; ``per CPU s`` is the client's own time, and what a core
could do. Ratios are of streams per CPU second. Latencies of the stub mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from harness.models.tokenizer import write_tokenizer

_ROOT = Path(__file__).parent.parent
_OURS = "harness"
_BARE = "bare reader (nothing decoded)"
_SHAPES = ((16, 0), (16, 2), (16, 5), (128, 0), (128, 2), (128, 5))
"""Pieces per stream, and log-probabilities per token."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Streams per second of wall time, and of the client's CPU time."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A client to measure: its reader (see ``bench.reading``), and the checkout whose harness it uses."""

    name: str
    reader: str
    checkout: Path = _ROOT


def main() -> None:
    """Print one table for each shape of stream."""
    options = _options()
    contenders = [Contender(_OURS, "harness"), Contender("harness, through aiohttp, event by event", "aiohttp")]
    if options.beside:
        contenders.append(Contender(f"harness of {options.beside.name}", "harness", options.beside.resolve()))
    contenders.append(Contender(_BARE, "bare"))
    for pieces, logprobs in options.shape or _SHAPES:
        print(f"\n{options.tokens} tokens in {pieces} pieces, {logprobs or 'no'} log-probabilities, median of rounds:")
        with _stub(options, pieces, logprobs) as url:
            _show(_rounds(contenders, url, logprobs, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000, help="streams per client and round (2000)")
    parser.add_argument("--concurrency", type=int, default=32, help="streams at a time (32)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens per stream (128)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median is shown (5)")
    parser.add_argument("--beside", type=Path, help="another checkout, whose client is measured too")
    parser.add_argument("--chat", action="store_true", help="chats, and not completions")
    parser.add_argument("--no-vllm", action="store_true", help="leave out `vllm bench serve`, which starts slowly")
    shape = "PIECES,LOGPROBS: only this shape of stream; may be repeated"
    parser.add_argument("--shape", type=_shape, action="append", help=shape)
    return parser.parse_args()


def _shape(text: str) -> tuple[int, int]:
    pieces, _, logprobs = text.partition(",")
    return int(pieces), int(logprobs or 0)


def _cores() -> tuple[int, int]:
    """The client's core and the stub's; the same one if there is no other."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1], cores[0]


@contextmanager
def _stub(options: argparse.Namespace, pieces: int, logprobs: int) -> Iterator[str]:
    arguments = ["--tokens", str(options.tokens), "--pieces", str(pieces), "--logprobs", str(logprobs)]
    arguments += ["--chat"] * options.chat
    with subprocess.Popen(
        [sys.executable, "-m", "bench.stub", *arguments], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        os.sched_setaffinity(process.pid, {_cores()[1]})
        try:
            yield (process.stdout or sys.stdin).readline().strip()
        finally:
            process.kill()


def _rounds(
    contenders: Sequence[Contender], url: str, logprobs: int, options: argparse.Namespace
) -> dict[str, list[Rate]]:
    found: dict[str, list[Rate]] = {}
    for _ in range(options.rounds):
        for one in contenders:
            found.setdefault(one.name, []).append(_read(one, url, logprobs, options))
        if find_spec("vllm") and not options.no_vllm:
            found.setdefault("vllm bench serve", []).append(_vllm(url, logprobs, options))
    return found


def _read(one: Contender, url: str, logprobs: int, options: argparse.Namespace) -> Rate:
    settings = {"streams": options.streams, "concurrency": options.concurrency, "tokens": options.tokens}
    flags = [f"--{name}={value}" for name, value in {**settings, "logprobs": logprobs}.items()]
    flags += ["--chat"] * options.chat
    command = [sys.executable, str(_ROOT / "bench" / "reading.py"), one.reader, url, *flags]
    return Rate(**json.loads(_run(command, {"PYTHONPATH": str(one.checkout)}).stdout))


def _vllm(url: str, logprobs: int, options: argparse.Namespace) -> Rate:
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), max_model_len=4096)
        backend = "openai-chat" if options.chat else "openai"
        command = [
            *(sys.executable, str(_ROOT / "bench" / "vllm_serve.py"), "--backend", backend, "--base-url", url),
            *("--model", "m", "--tokenizer", folder, "--dataset-name", "random", "--random-input-len", "200"),
            *("--random-output-len", str(options.tokens), "--num-prompts", str(options.streams), "--disable-tqdm"),
            *("--max-concurrency", str(options.concurrency), "--ready-check-timeout-sec", "0"),
            *(("--logprobs", str(logprobs)) if logprobs else ()),
            *(("--endpoint", "/v1/chat/completions") if options.chat else ()),
        ]
        return Rate(**json.loads(_run(command, {"PYTHONPATH": str(_ROOT)}).stdout.splitlines()[-1]))


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # Pinned before it starts, so that libraries make as many threads as there are cores.
    pinned = ["taskset", "--cpu-list", str(_cores()[0]), *command]
    done = subprocess.run(pinned, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done


def _show(found: dict[str, list[Rate]]) -> None:
    ours = median(rate.cpu for rate in found[_OURS])
    for name, rates in found.items():
        wall, cpu = median(rate.wall for rate in rates), median(rate.cpu for rate in rates)
        ratio = "" if name in (_OURS, _BARE) else f"   harness is {ours / cpu:.1f} times as fast"
        print(f"  {name:42} {wall:8,.0f} streams/s {cpu:8,.0f} per CPU s{ratio}")


if __name__ == "__main__":
    main()
