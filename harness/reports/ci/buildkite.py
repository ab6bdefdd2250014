"""Buildkite: an annotation of the build, made by its agent from Markdown on stdin."""

import subprocess
from collections.abc import Mapping, Sequence

from harness.redact import redact_text
from harness.reports.identity import PROJECT
from harness.reports.text import clean
from harness.verdict import Verdict

_STYLES = {Verdict.VALID: "success", Verdict.INVALID: "error", Verdict.UNKNOWN: "warning"}
_SECONDS = 30.0
_LONGEST_CONTEXT = 100
_STEP = ("BUILDKITE_STEP_KEY", "BUILDKITE_STEP_ID")
MOST_BYTES = 1024 * 1024
"""Of an annotation."""


def context_of(names: Sequence[str], environment: Mapping[str, str]) -> str:
    """The name under which an annotation replaces an earlier one of the build.

    It has the step's name: two steps of a build must not replace each other's verdicts. A step that is tried again
    does replace its own.
    """
    step = next((environment[name] for name in _STEP if environment.get(name)), "")
    which = _joined(step, environment.get("BUILDKITE_PARALLEL_JOB", ""))
    room = _LONGEST_CONTEXT - len(which) - 1
    return _joined(_joined(PROJECT, *names)[:room], which)


def _joined(*parts: str) -> str:
    return "-".join(filter(None, map(_word, parts)))


def _word(text: str) -> str:
    return "".join(one if one.isalnum() or one in "-_." else "-" for one in text)


def annotate(markdown: str, verdict: Verdict, context: str) -> str:
    """Make the annotation; returns why it could not be made, in one line, or nothing."""
    command = ["buildkite-agent", "annotate", "--style", _STYLES[verdict], "--context", context]
    content = markdown.encode()
    if len(content) > MOST_BYTES:
        content = content[:MOST_BYTES].rpartition(b"\n")[0]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return clean(redact_text(f"buildkite-agent: {_why(error)}"))
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return clean(redact_text(f"buildkite-agent ended with status {done.returncode}: {said[-1] if said else ''}"))
    return ""


def _why(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {_SECONDS:.0f} s"
    return "it is not on the PATH" if isinstance(error, FileNotFoundError) else str(error.strerror)
