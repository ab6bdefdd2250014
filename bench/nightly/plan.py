"""A night's jobs from a file: ``--plan plan.toml``.

    [[job]]
    name = "steady"                      # a ready job
    repeat = 5

    [[job]]
    name = "shared_prefix"               # one of your own
    flags = ["--dataset-name", "prefix_repetition", "--num-prompts", "400"]
    timeout_sec = 900

    [[job]]
    name = "paused_decode"
    flags = ["--num-prompts", "200", "--fault", "pause:server=decode-0,after=1,for=2"]
    own_deployment = true

Whatever is wrong with it is a UsageError, before anything is started.
"""

import contextlib
import io
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.nightly.jobs import READY, Job
from harness.cli.options import parse
from harness.errors import UsageError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_KEYS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "flags": (list,),
    "repeat": (int,),
    "own_deployment": (bool,),
    "timeout_sec": (int, float),
}
_OURS = ("--result-dir", "--label", "--seed", "--junit", "--base-url", "--prefill-url", "--decode-url")
"""Flags that the nightly job gives itself."""


def read_plan(path: Path) -> tuple[Job, ...]:
    """The jobs of a plan, in its order. Raises UsageError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--plan: {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--plan: {path} is not TOML: {error}.") from error
    try:
        return _jobs(content)
    except ValueError as error:
        raise UsageError(f"--plan: {path}: {error}.") from error


def _jobs(content: Mapping[str, Any]) -> tuple[Job, ...]:
    if unknown := content.keys() - {"job"}:
        raise ValueError(f"there is nothing called {_listed(unknown)}; a plan has only [[job]] tables")
    tables = content.get("job")
    if not isinstance(tables, list) or not tables or not all(isinstance(one, dict) for one in tables):
        raise ValueError("it has no job: write at least one [[job]] table")
    jobs = tuple(_job(table, number) for number, table in enumerate(tables, 1))
    names = [job.name for job in jobs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two jobs are called {_listed(twice)}: results are compared by these names")
    return jobs


def _job(table: Mapping[str, Any], number: int) -> Job:
    where = f"job {number}"
    if unknown := table.keys() - _KEYS.keys():
        raise ValueError(f"{where} has no {_listed(unknown)}; it may have {', '.join(_KEYS)}")
    for key, value in table.items():
        if not isinstance(value, _KEYS[key]) or (isinstance(value, bool) and bool not in _KEYS[key]):
            raise ValueError(f"{where}: {key} = {value!r} is no {_KEYS[key][0].__name__}")
    name = table.get("name", "")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: name = {name!r}: use up to 40 lower-case letters, digits, hyphens and underscores")
    return _checked(_made(table, name), f"job {name}")


def _made(table: Mapping[str, Any], name: str) -> Job:
    ready = READY.get(name)
    if "flags" in table:
        job = Job(name, _words(table["flags"], name))
    elif ready:
        job = ready
    else:
        raise ValueError(f"job {name} has no flags, and no ready job has this name; there are {', '.join(READY)}")
    return replace(
        job,
        repeat=table.get("repeat", job.repeat),
        own_deployment=table.get("own_deployment", job.own_deployment),
        timeout=table.get("timeout_sec", job.timeout),
    )


def _words(flags: Sequence[Any], name: str) -> tuple[str, ...]:
    if not all(isinstance(word, str) for word in flags):
        raise ValueError(f'job {name}: flags is a list of texts, as in ["--num-prompts", "256"]')
    return tuple(flags)


def _checked(job: Job, where: str) -> Job:
    if job.repeat < 1:
        raise ValueError(f"{where}: repeat = {job.repeat}: it must be at least 1")
    if job.timeout is not None and not job.timeout > 0:
        raise ValueError(f"{where}: timeout_sec = {job.timeout}: it must be more than 0")
    if ours := [word for word in job.flags if word.partition("=")[0] in _OURS]:
        raise ValueError(f"{where}: {ours[0]} is given by the nightly job; leave it out")
    _parsed(job, where)
    return job


def _parsed(job: Job, where: str) -> None:
    """Let the harness read the flags now: not every night at two in the morning."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parse(["run", *job.flags])
    except SystemExit as ended:
        lines = said.getvalue().strip().splitlines()
        raise ValueError(f"{where}: {lines[-1] if lines else 'its flags cannot be read'}") from ended
    except UsageError as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}") from error


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
