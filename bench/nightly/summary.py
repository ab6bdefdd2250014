"""A night in a few lines: on the terminal, and as Markdown for a CI system's page."""

import re
from pathlib import Path

from bench.nightly.record import Night
from harness.store.atomic import write_atomically

SUMMARY = "summary.md"


def lines_of(night: Night) -> list[str]:
    """The verdict, and its reasons."""
    beside = f", beside the night {night.compared_with}" if night.compared_with else ""
    return [f"night {night.name}: {night.result.upper()}{beside}", *(f"  {reason}" for reason in night.reasons)]


def write_summary(directory: Path, night: Night) -> None:
    """Write ``summary.md``. Raises OSError."""
    write_atomically(directory / SUMMARY, markdown(night))


def markdown(night: Night) -> str:
    """The night as Markdown."""
    parts = [f"## Night {night.name}: {night.result.upper()}", ""]
    parts += [f"- {_plain(reason)}" for reason in night.reasons] or ["Every run is valid."]
    parts += [
        "",
        "| run | verdict | p99 TTFT ms | p50 ITL ms | requests/s | wrong | failed |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for run in night.runs:
        keys = ("p99_ttft_ms", "p50_itl_ms", "request_throughput", "wrong_outputs", "failed")
        figures = " | ".join(f"{run.metrics[key]:.4g}" if key in run.metrics else "-" for key in keys)
        parts.append(f"| {_plain(run.job)} {run.repeat} | {run.result} | {figures} |")
    for one in night.comparisons:
        parts += ["", f"**{_plain(one.job)}** beside the night {_plain(night.compared_with)}:", ""]
        parts += [f"- {_plain(line)}" for line in one.lines]
    versions = f"{night.engine_version or 'unknown engine'}, harness {night.harness_version} {night.commit[:10]}"
    return "\n".join([*parts, "", _plain(versions), ""])


def _plain(text: str) -> str:
    """The text with everything escaped that Markdown or HTML could read as more than text."""
    return (
        re.sub(r"([\\`*_{}\[\]()<>#!|~&@])", r"\\\1", text)
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
        .replace("\\&", "&amp;")
        .replace("\\@", "@\u200b")
    )
