"""How each load generator is asked to send the same load, by its own command line. Pure, but for the files it names.

A tool sends either so many streams at a time (``rate`` None) or so many a second at equal intervals. Settings are those
with which each does the least beside the load: token counts from the server where the tool can take them, no telemetry,
no live display. All have the tokenizer of the canary model, without network.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

from bench.stamps import Shape

PROGRAMS = ("guidellm", "aiperf", "inference_perf", "wrk")
"""The flags that name peers' programs."""
_SNAPSHOT = "0" * 40
_HUB_NAME = "bench/canary"
OURS = "harness, whole command line"
CLIENT = "harness.load.Client alone"
BARE = "bare reader (decodes nothing)"


@dataclass(frozen=True, slots=True)
class Load:
    """What a tool is asked to send, and where it may write."""

    url: str
    servers: tuple[str, str]
    """Idle stubs in the places of the prefill and the decode server, which the harness's command line asks for."""
    model: Path
    folder: Path
    shape: Shape
    streams: int
    concurrency: int
    rate: float | None = None
    """Streams per second; None: ``concurrency`` at a time."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A load generator: its command for a load, and the exit codes that mean that the load was sent."""

    name: str
    command: Callable[[Load], Sequence[str]]
    accepted: tuple[int, ...] = (0,)
    times: int = 1
    """How many times as many streams it is asked for: those that cost little are measured over more of them."""
    exact: bool = True
    """Whether it sends exactly the streams that it is asked for. If not, it has no start worth subtracting either."""


def environment(model: Path, folder: Path) -> Mapping[str, str]:
    """Variables for all tools. Makes a hub cache that holds the tokenizer, for tools that take no folder's name."""
    cached = folder / "hub" / f"models--{_HUB_NAME.replace('/', '--')}"
    if not cached.exists():
        # The tokenizer and the configuration; nobody needs the weights.
        copytree(model, cached / "snapshots" / _SNAPSHOT, ignore=lambda _, names: [n for n in names if "safet" in n])
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text(_SNAPSHOT)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {**offline, "HF_HOME": str(folder)}


def ours(load: Load) -> Sequence[str]:
    """``python -m harness run``. It also judges, and ends with 3: the stub has no counters that it could judge by."""
    prefill, decode = load.servers
    return [
        *(sys.executable, "-m", "harness", "run", "--plain", "--model", str(load.model), "--base-url", load.url),
        *("--prefill-url", prefill, "--decode-url", decode, "--num-prompts", str(load.streams), "--verify", "sample:0"),
        *("--random-input-len", str(load.shape.prompt), "--random-output-len", str(load.shape.tokens)),
        *("--num-warmups", "0", "--settle-timeout-sec", "0.1", "--result-dir", str(load.folder / "runs")),
        *_either(load, "--concurrency", "--request-rate", "--burstiness", "inf"),
    ]


def reading(reader: str) -> Callable[[Load], Sequence[str]]:
    """A reader of ``bench.reading``, closed loop only."""

    def command(load: Load) -> Sequence[str]:
        counts = {"streams": load.streams, "concurrency": load.concurrency, "tokens": load.shape.tokens, "logprobs": 0}
        flags = [f"--{name}={value}" for name, value in counts.items()]
        return [sys.executable, "-m", "bench.reading", reader, load.url, *flags]

    return command


def vllm(load: Load) -> Sequence[str]:
    """``vllm bench serve``, started without its console script, which the CPU package has not."""
    return [
        *(sys.executable, "-m", "bench.vllm_serve", "--backend", "openai", "--base-url", load.url),
        *("--model", "m", "--tokenizer", str(load.model), "--dataset-name", "random", "--ignore-eos", "--disable-tqdm"),
        *("--random-input-len", str(load.shape.prompt), "--random-output-len", str(load.shape.tokens)),
        *("--num-prompts", str(load.streams), "--ready-check-timeout-sec", "0", "--request-id-prefix", "bench-"),
        *("--save-result", "--save-detailed", "--result-dir", str(load.folder), "--result-filename", "vllm.json"),
        *_either(load, "--max-concurrency", "--request-rate", "--burstiness", "1000000"),
    ]


def guidellm(program: Path) -> Callable[[Load], Sequence[str]]:
    """``guidellm run``."""

    def command(load: Load) -> Sequence[str]:
        profile = f"concurrent,streams={load.concurrency}" if load.rate is None else f"constant,rate={load.rate:.6g}"
        backend = f"kind=openai_http,target={load.url},model=m,request_format=/v1/completions,http2=false"
        data = f"kind=synthetic_text,prompt_tokens={load.shape.prompt},output_tokens={load.shape.tokens}"
        return [
            *(str(program), "run", "--backend", backend, "--profile", f"kind={profile}", "--data", data),
            *("--constraint", f"kind=max_requests,count={load.streams}", "--disable-console"),
            *("--tokenizer", f"kind=huggingface_auto,model={load.model}"),
            *("--output", f"kind=json,path={load.folder / 'guidellm.json'}"),
        ]

    return command


def aiperf(program: Path) -> Callable[[Load], Sequence[str]]:
    """``aiperf profile``."""

    def command(load: Load) -> Sequence[str]:
        return [
            *(str(program), "profile", "--model", "m", "--url", load.url, "--endpoint-type", "completions"),
            *("--streaming", "--tokenizer", _HUB_NAME, "--use-server-token-count", "--ui", "none"),
            *("--isl", str(load.shape.prompt), "--osl", str(load.shape.tokens), "--request-count", str(load.streams)),
            *("--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", str(load.folder / "aiperf")),
            *_either(load, "--concurrency", "--request-rate", "--arrival-pattern", "constant"),
        ]

    return command


def inference_perf(program: Path) -> Callable[[Load], Sequence[str]]:
    """``inference-perf --config_file``, closed loop only. Tried with 0.7."""

    def command(load: Load) -> Sequence[str]:
        corpus = load.folder / "inference-perf.txt"
        config = {
            "load": {
                "type": "concurrent",
                "num_workers": 1,
                "worker_max_concurrency": load.concurrency,
                "stages": [{"num_requests": load.streams, "concurrency_level": load.concurrency}],
            },
            "api": {"type": "completion", "streaming": True},
            "server": {"type": "vllm", "model_name": "m", "base_url": load.url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": str(load.model)},
            "data": {
                "type": "synthetic",
                "corpus_file_path": str(corpus),
                "input_distribution": _lengths(load.shape.prompt, load.streams),
                "output_distribution": _lengths(load.shape.tokens, load.streams),
            },
            "storage": {"local_storage": {"path": str(load.folder / "inference-perf")}},
        }
        # Its own corpus of five megabytes takes a minute to encode before the load begins.
        corpus.write_text("the of and to in is it you that he was for on are with as " * 100)
        path = load.folder / "inference-perf.json"
        # JSON is YAML.
        path.write_text(json.dumps(config))
        return [str(program), "--config_file", str(path)]

    return command


def _lengths(tokens: int, count: int) -> dict[str, int | str]:
    """Always the same length."""
    return {"type": "fixed", "min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": count}


def wrk(program: Path) -> Callable[[Load], Sequence[str]]:
    """``wrk``, which reads bytes and finds the ends of answers: no events; asked for a time, not for streams."""

    def command(load: Load) -> Sequence[str]:
        script, seconds = load.folder / "wrk.lua", max(2, load.streams // 2000)
        body = json.dumps({"model": "m", "prompt": [1] * load.shape.prompt, "stream": True})
        script.write_text(
            f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{body}'\n"
        )
        connections = ("-t", "1", "-c", str(load.concurrency), "-d", f"{seconds}s")
        return [str(program), *connections, "-s", str(script), f"{load.url}/v1/completions"]

    return command


def _either(load: Load, concurrency: str, rate: str, *pattern: str) -> tuple[str, ...]:
    """The flags of a closed loop, or of a rate."""
    return (concurrency, str(load.concurrency)) if load.rate is None else (rate, f"{load.rate:.6g}", *pattern)


def peers(programs: Mapping[str, Path | None]) -> tuple[list[Tool], list[str]]:
    """The peers that can be measured here, and a sentence about each that cannot. ``programs``: path by name."""
    makers = {"guidellm": ("GuideLLM", guidellm), "aiperf": ("AIPerf", aiperf)}
    makers |= {"inference_perf": ("inference-perf", inference_perf), "wrk": ("wrk (decodes nothing)", wrk)}
    found = [Tool("vllm bench serve", vllm)] if find_spec("vllm") else []
    missing = [] if found else ["vllm bench serve is left out: this Python has no vLLM."]
    for key, (name, maker) in makers.items():
        path = programs.get(key)
        if path and path.is_file():
            found.append(Tool(name, maker(path.absolute()), exact=key != "wrk"))
        else:
            missing.append(
                f"{name} is left out: " + (f"{path} is no file." if path else f"no --{key.replace('_', '-')}.")
            )
    return found, missing
