"""Reads a server's log while it starts: how far it has come, and if it failed, why. Pure.

vLLM prints hundreds of lines and, when it fails, several nested tracebacks from several processes; the cause is
the first exception of the innermost process, what follows are its consequences.
"""

import re

_STAGES: tuple[tuple[str, str], ...] = (
    # What a line contains, in the order of a start → what the server does from then on.
    (r"non-default args|vLLM API server version", "reading the model's configuration"),
    (r"Using max model len", "starting the engine"),
    (r"Initializing a V1 LLM engine", "starting its worker"),
    (r"Starting to load model", "loading weights"),
    (r"Loading weights took", "sizing the KV cache"),
    (r"KV cache size: ", "allocating the KV cache"),
    (r"Initializing NIXL wrapper", "registering the KV cache with NIXL"),
    (r"Capturing CUDA graphs|Graph capturing|[Ww]arming up|torch\.compile takes", "warming up kernels"),
    (r"init engine .* took", "starting the HTTP server"),
    (r"Application startup complete", "answering"),
)

_EXCEPTION = re.compile(
    r"^(?:\([^)]*\)\s*)?(?:ERROR \S+ \S+ \[[^\]]*\]\s*)?"
    r"(?P<kind>(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|NotFound|Interrupt)|Exception): (?P<text>.+)$"
)
_ARGPARSE = re.compile(r"^\S+\.py: error: (?P<text>.+)$")
_CONSEQUENCES = ("Engine core initialization failed", "Worker failed with error", "cancelled", "Engine process failed")
_PREFIX = re.compile(r"^(?:\([^)]*\)\s*)?(?:ERROR \S+ \S+ \[[^\]]*\]\s?)?")


def stage(log: str) -> str | None:
    """What the server was last seen doing; None before its first telling line."""
    latest = None
    for pattern, name in _STAGES:
        if re.search(pattern, log):
            latest = name
    return latest


def cause(log: str) -> str | None:
    """Why it failed, in its own words: the first exception that is not the consequence of another."""
    lines = log.splitlines()
    for index, line in enumerate(lines):
        if match := _ARGPARSE.match(line):
            return match["text"]
        if (match := _EXCEPTION.match(line)) and not any(word in match["text"] for word in _CONSEQUENCES):
            return _with_continuation(match, lines[index + 1 :])
    return None


def _with_continuation(match: "re.Match[str]", following: list[str]) -> str:
    """Pydantic says "1 validation error for ModelConfig" and the error itself on the next two lines."""
    text = f"{match['kind'].rpartition('.')[2]}: {match['text']}"
    if "validation error" not in text:
        return text
    details = [_PREFIX.sub("", line).strip() for line in following[:2]]
    return " ".join([text, *filter(None, details)])


def last_lines(log: str, count: int = 5) -> str:
    """The log's end, for when it names no exception."""
    return "\n".join([line for line in log.splitlines() if line.strip()][-count:])
