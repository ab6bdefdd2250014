"""Runs that versions of the harness stored, kept in tests/data/runs, and the form in which this version stores.

After a change of the stored form, run the harness on the simulated pair so that the run has what is new, and then, in
the root of the repository,

    PYTHONPATH=tests/support python -m stored_samples RUN_DIR WHAT

which packs the run as a sample, notes what was said of it, and writes tests/data/runs/form.json.
"""

import io
import json
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import EnumType
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from harness.facts import Deployment
from harness.history import Entry
from harness.store.entries import _kind
from harness.store.rundir import DEPLOYMENT, HISTORY, RESULT

RUNS = Path(__file__).parent.parent / "data" / "runs"
THEN = RUNS / "then.json"
FORM = RUNS / "form.json"
_FILES = (DEPLOYMENT, RESULT, HISTORY)
_PLACES = re.compile(r"(?<![\w:/.])/(?:[\w.~-]+/)+[\w.~-]+")
"""Absolute paths. URLs have a colon and a slash before theirs."""
_ENDPOINTS = re.compile(r"/(v1|tokenize|detokenize|reset_prefix_cache)\b")
_EXIT_CODES = {"valid": 0, "invalid": 1, "unknown": 3}


def then() -> list[dict[str, Any]]:
    """What each sample's own version said of it: exit code, verdict, the verdict of each check and workload."""
    return json.loads(THEN.read_text())


def unpack(sample: str, to: Path) -> Path:
    """The sample as a run's directory."""
    directory = to / sample
    directory.mkdir(parents=True)
    with tarfile.open(RUNS / f"{sample}.tar.xz") as packed:
        packed.extractall(directory, filter="data")
    return directory


def kinds_in(sample: str) -> set[str]:
    """The kinds of entries in a sample's history, as its version named them."""
    with tarfile.open(RUNS / f"{sample}.tar.xz") as packed:
        history = packed.extractfile(HISTORY)
        assert history is not None
        return {json.loads(line)["kind"] for line in history}


# --- the form in which this version stores ---


def stored_form() -> dict[str, list[str]]:
    """Each class and enum that is stored: its fields with their types, or its values; and the kinds of entries."""
    kinds = {"(kinds of entries)": sorted(map(_kind, get_args(Entry)))}
    return kinds | dict(sorted(described(*get_args(Entry), Deployment).items()))


def described(*kinds: type) -> dict[str, list[str]]:
    """The same of some classes, with all that is stored inside them."""
    form: dict[str, list[str]] = {}
    for kind in kinds:
        _describe(kind, form)
    return form


def _describe(kind: Any, form: dict[str, list[str]]) -> None:
    name = getattr(kind, "__name__", "")
    if name in form:
        return
    if isinstance(kind, EnumType):
        form[name] = sorted(str(member) for member in kind)
    elif is_dataclass(kind) or hasattr(kind, "__struct_fields__"):
        hints = get_type_hints(kind)
        form[name] = [f"{field}: {_text(hints[field])}" for field in _fields(kind)]
        for hint in hints.values():
            _describe(hint, form)
    else:
        for part in get_args(kind):
            _describe(part, form)


def _fields(kind: Any) -> Iterator[str]:
    return iter(kind.__struct_fields__) if not is_dataclass(kind) else (field.name for field in fields(kind))


def _text(hint: Any) -> str:
    """A type in the same words in every version of Python, without the modules of its parts, which may move."""
    parts = [_text(part) for part in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(parts)
    name = {NoneType: "None", Ellipsis: "..."}.get(hint) or (get_origin(hint) or hint).__name__
    return f"{name}[{', '.join(parts)}]" if parts else name


# --- a new sample ---


def pack(run: Path, what: str) -> str:
    """Make a sample of a run that this version has just stored; returns its name."""
    contents = {name: _without_places((run / name).read_text()) for name in _FILES}
    result = json.loads(contents[RESULT])
    when = datetime.strptime(result["date"], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    sample = f"{when:%Y%m%dT%H%M}-{(result['commit'] or 'unknown')[:7]}-{what}"
    (RUNS / f"{sample}.tar.xz").write_bytes(lzma.compress(_tar(contents), preset=9 | lzma.PRESET_EXTREME))
    _note(sample, result)
    FORM.write_text(json.dumps(stored_form(), indent=1) + "\n")
    return sample


def _without_places(text: str) -> str:
    """The text, in which a path is the last part of it: no machine's directories are published."""
    return _PLACES.sub(lambda path: path[0] if _ENDPOINTS.match(path[0]) else Path(path[0]).name, text)


def _tar(contents: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _note(sample: str, result: dict[str, Any]) -> None:
    died = any(check["name"] == "processes" for check in result["checks"])
    code = 4 if died and result["verdict"] == "unknown" else _EXIT_CODES[result["verdict"]]
    said = {
        "sample": sample,
        "exit_code": code,
        "verdict": result["verdict"],
        "checks": {check["name"]: check["verdict"] for check in result["checks"]},
    }
    if "workloads" in result:
        said["workloads"] = {row["workload"]: row["verdict"] for row in result["workloads"]}
    lines = [json.dumps(one) for one in (*then(), said)]
    THEN.write_text("[\n" + ",\n".join(f"  {line}" for line in lines) + "\n]\n")


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), sys.argv[2]))
