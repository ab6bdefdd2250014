"""Reads the log of a starting server: its stage, and the cause if it failed. Pure.

vLLM prints hundreds of lines and, when it fails, several nested tracebacks from several processes. The cause is the
first exception of the innermost process; later ones are its consequences.
"""

import re

_STAGES: tuple[tuple[str, str], ...] = (
    # A pattern in a line of the log, in the order of a start, and the stage that begins with this line.
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
    """The server's latest stage; None before the first line that shows one."""
    latest = None
    for pattern, name in _STAGES:
        if re.search(pattern, log):
            latest = name
    return latest


def cause(log: str) -> str | None:
    """The cause of the failure in the server's own words: the first exception that another one did not cause."""
    lines = log.splitlines()
    for index, line in enumerate(lines):
        if match := _ARGPARSE.match(line):
            return match["text"]
        if (match := _EXCEPTION.match(line)) and not any(word in match["text"] for word in _CONSEQUENCES):
            return _with_continuation(match, lines[index + 1 :])
    return None


def _with_continuation(match: "re.Match[str]", following: list[str]) -> str:
    """Pydantic writes "1 validation error for ModelConfig", and the error itself on the next two lines."""
    text = f"{match['kind'].rpartition('.')[2]}: {match['text']}"
    if "validation error" not in text:
        return text
    details = [_PREFIX.sub("", line).strip() for line in following[:2]]
    return " ".join([text, *filter(None, details)])


def last_lines(log: str, count: int = 5) -> str:
    """The end of the log, for a log without an exception."""
    return "\n".join([line for line in log.splitlines() if line.strip()][-count:])
