"""Whether another process still runs. Linux only."""

from pathlib import Path


def alive(pid: int) -> bool:
    """Whether the process exists and has not ended; one that has ended and waits for its parent (a zombie) has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    # The second error: the process ended between opening and reading the file.
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
