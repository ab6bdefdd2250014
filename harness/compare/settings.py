"""What must be alike for two runs to be comparable: model, deployment, workload and faults. Versions may differ."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.facts import Deployment, Role, alike
from harness.history import History, RunStarted

_OF_SERVERS = (
    *("block_size", "num_blocks", "prefix_caching", "max_num_batched_tokens", "ranks", "engines", "kv_dtype"),
    *("connector_names", "offload_block_size", "offload_blocks"),
)
_OF_RESULT = ("num_prompts", "request_rate", "burstiness", "max_concurrency")

_OBJECTIVES = "goodput_objectives_ms"

_FREE = {
    *("result-dir", "result-filename", "label", "metadata", "junit", "plain", "disable-tqdm", "save-detailed", "seed"),
    *("noise-floor", "port", "prefill-port", "decode-port", "base-url", "prefill-url", "decode-url", "header"),
    *("engine-python", "prefill-python", "decode-python", "ready-check-timeout-sec", "goodput", "model", "engine"),
    *("served-model-name", "reference-url", "kv-cache-dtype", "device", "prefill", "decode", "block-size"),
    *("num-gpu-blocks", "connector", "num-prompts", "concurrency", "request-rate", "burstiness", "log-dir"),
}
"""Flags that change nothing in what is measured, or whose effect is compared as a fact."""
_ALIASES = {"max-concurrency": "concurrency", "input-len": "random-input-len", "output-len": "random-output-len"}


def settings_of(deployment: Deployment, history: History, result: Mapping[str, Any]) -> dict[str, str]:
    """Each setting's value, for display and for comparison. What is not stored is left out."""
    started = next(history.of(RunStarted))
    return {
        "model": deployment.model,
        "engine": deployment.engine,
        "device": deployment.device or "unknown",
        **{f"{role.value}_servers": str(len(deployment.of(role))) for role in Role},
        **dict(_of_servers(deployment)),
        "workloads": ", ".join(started.scenarios),
        **{name: str(result[name]) for name in _OF_RESULT if name in result},
        **dict(_objectives(result)),
        **dict(_flags(started.argv)),
    }


def _objectives(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What goodput was counted by: the goodput of other objectives is another metric."""
    objectives = result.get(_OBJECTIVES)
    if isinstance(objectives, dict):
        yield _OBJECTIVES, ", ".join(f"{name} {limit}" for name, limit in sorted(objectives.items()))


def versions_of(deployment: Deployment, started: RunStarted) -> dict[str, str]:
    """Versions of the engine and the harness, and the harness's commit."""
    return {
        "engine": alike(server.version for server in deployment.servers),
        "harness": started.harness_version,
        "commit": started.commit or "unknown",
    }


def _of_servers(deployment: Deployment) -> Iterator[tuple[str, str]]:
    for name in _OF_SERVERS:
        values = [getattr(server, name) for server in deployment.servers]
        if any(value is not None for value in values):
            yield ("connector" if name == "connector_names" else name), alike(map(_shown, values))


def _shown(value: object) -> object:
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


def _flags(argv: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The flags of a command line that describe its load, its faults and its verification, with their values."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = _ALIASES.get(name, name)
            found.setdefault(name, []).extend([value] if value else [])
        elif name:
            found[name].append(word)
    for name, values in found.items():
        if name not in _FREE:
            yield name.replace("-", "_"), " ".join(values) or "given"


def differing(settings: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """For each setting that is not alike in all runs, its value by run; ``settings`` by run.

    A run of an earlier release that did not store a fact is left out for that fact; a flag that was not given differs
    from one that was.
    """
    names = dict.fromkeys(name for one in settings.values() for name in one)
    found = {}
    for name in names:
        known = [one for one in settings if name in settings[one] or name not in _STORED]
        values = {run: settings[run].get(name, "not given") for run in known}
        if len(set(values.values())) > 1:
            found[name] = values
    return found


_STORED = {"connector", *_OF_SERVERS, *_OF_RESULT, _OBJECTIVES}
"""Settings that are facts: earlier releases may not have stored them, and a run without objectives has no goodput."""
