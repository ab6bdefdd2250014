"""Finds and reads a model's files: a local directory, or the local cache of earlier downloads from the hub."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ModelNotFound

GENERATION = "generation_config.json"


def locate(model: str | Path) -> Path:
    """The directory of a model's files. Raises `ModelNotFound`."""
    for path in (Path(model).expanduser(), *_snapshots(str(model))):
        # An empty name must not stand for the working directory.
        if str(model) and (path / "config.json").is_file():
            return path.resolve()
    raise ModelNotFound(
        f"There is no model at {model}: no directory of that name has a config.json, and no download of that name is "
        f"in {_hub_cache()}. Give the path of a checkpoint, download the model first (hf download {model}), or leave "
        "--model out to use the canary."
    )


def _hub_cache() -> Path:
    """Find the hub cache as huggingface_hub does, from HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("HF_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser() / "hub"


def _snapshots(name: str) -> Iterator[Path]:
    """Yield the downloaded snapshots of a hub name: the one of ``main`` first, then the others, newest first."""
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        return
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        yield repository / "snapshots" / main.read_text(encoding="utf-8").strip()
    snapshots = repository.glob("snapshots/*")
    yield from sorted(snapshots, key=lambda path: path.stat().st_mtime, reverse=True)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ModelNotFound` if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    # RecursionError is raised for deeply nested arrays.
    except (OSError, ValueError, RecursionError) as error:
        raise ModelNotFound(f"{path} cannot be read as JSON ({error}). Download or make the model again.") from error
    if not isinstance(content, dict):
        raise ModelNotFound(f"{path} does not hold a JSON object. Download or make the model again.")
    return content


def special_ids(path: Path | None, *configs: Mapping[str, Any]) -> Iterator[int]:
    """Yield special tokens' ids from the configurations and, if ``path`` is given, from files in that directory."""
    for config in (*configs, *([_read_if_there(path / GENERATION)] if path else [])):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            yield from _ids(config.get(key))
    added = _read_if_there(path / "tokenizer.json").get("added_tokens") if path else None
    for token in added if isinstance(added, list) else ():
        if isinstance(token, Mapping) and token.get("special"):
            yield from _ids(token.get("id"))


def _read_if_there(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _ids(value: Any) -> Iterator[int]:
    """Yield the ids in a value, which may be one id, a list of ids or None."""
    many = value if isinstance(value, list) else [value]
    yield from (one for one in many if isinstance(one, int) and not isinstance(one, bool) and one >= 0)
