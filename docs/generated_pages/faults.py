"""A page for each kind of fault, from its docstrings and from what it tolerates."""

from collections.abc import Iterator

from generated_pages.markup import doc, field_docs, table
from harness.faults import KINDS, Fault
from harness.faults.fault import OfLoad
from harness.faults.kinds import USUAL
from harness.faults.moments import State
from harness.faults.plan import options_of
from harness.history import Tolerated

_OF_TARGET = {
    "server": "The server: `prefill-0`, `decode-0`, …, or `proxy` where the fault can reach it.",
    "share": "The share of the load's requests, above 0 and at most 1.",
    "moment": "When clients leave: `first-token`, `transfer` or `stream`.",
    "seed": "Decides, with a request's id, which clients leave and when.",
}
"""Options whose fields have no docstring of their own."""


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of each page."""
    for name, kind in KINDS.items():
        yield f"faults/{name}.md", _page(name, kind)


def _page(name: str, kind: type[Fault]) -> str:
    summary, rules = doc(kind)
    parts = (
        f"# {name}",
        summary,
        "## What it does, and what counts as evidence",
        rules,
        f"*Note:* {kind.note}." if hasattr(kind, "note") else "",
        "## Options",
        table(("option", "default", "meaning"), _options(kind)),
        _when(kind),
        "## What is tolerated",
        _tolerated(kind),
        "## To try it",
        "\n".join(("```sh", *_commands(name), "```")),
        "[What it did to a pair of vLLM](measured.md) · [all faults](index.md)",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _options(kind: type[Fault]) -> Iterator[tuple[str, str, str]]:
    said = {**_OF_TARGET, **field_docs(kind)}
    for name, default in options_of(kind).items():
        yield f"`{name}`", f"`{default:g}`" if isinstance(default, float) else f"`{default}`", said[name]


def _when(kind: type[Fault]) -> str:
    if issubclass(kind, OfLoad):
        return "It lasts as long as the load, and has no times of its own."
    states = ", ".join(f"`{state}`" for state in State)
    return (
        "Like all faults with a moment, it also takes `after` (seconds from the beginning of the load; default 1), "
        "`for` (seconds until it is undone; default 3), `ended` (requests that must have ended before), "
        f"`when` ({states}), `alone` (`target` or `all`) and `provokes` (a counter that must have grown): "
        "see [Faults](index.md#when)."
    )


def _tolerated(kind: type[Fault]) -> str:
    said = field_docs(Tolerated)
    listed = "\n".join(f"- *{one}*: {said[one.name]}" for one in kind().tolerates)
    head = "Of requests that overlap the fault, and of nothing else:" if listed else "Nothing, beyond the fault itself."
    return "\n\n".join(filter(None, (head, listed, "A wrong output or a request without an end is never tolerated.")))


def _commands(name: str) -> Iterator[str]:
    for text in USUAL:
        if text.partition(":")[0] == name:
            yield f"python -m harness --fault {text}"
    if name == "lease":
        yield (
            "python -m harness --fault lease:server=decode-0 --nixl-config '{\"kv_lease_duration\": 3}' "
            "--num-gpu-blocks 128 --engine-arg '--max-model-len 1024'"
        )
