"""Atomic writes: a file has either its old content or its whole new content, even after a crash."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to a temporary file, sync it to disk, and rename it to ``path``."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(_ordinary_mode())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def point_at(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to ``target``, replacing an older link in one step."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)


def _ordinary_mode() -> int:
    """The permissions that ``open`` would set; mkstemp only gives the owner access."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
