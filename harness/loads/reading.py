"""Reads the file that --dataset-path names."""

from pathlib import Path

from harness.errors import UsageError


def read_dataset(path: Path, form: str) -> str:
    """The file's text; ``form``: JSONL or JSON. Raises UsageError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"--dataset-path {path} cannot be read: {why}. Name a {form} file.") from None
