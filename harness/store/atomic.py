"""Atomic writes: a file has either its old content or its whole new content, even after a crash."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to a temporary file, sync it to disk, and rename it to ``path``.

    A device or a pipe is written to: a file that is put in its place would take it away from everybody.
    """
    if is_special(path):
        _write_to_special(path, content.encode() if isinstance(content, str) else content)
        return
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


def is_special(path: Path) -> bool:
    """Whether the path is that of a device, a pipe or a socket."""
    return path.exists() and not (path.is_file() or path.is_dir())


def _write_to_special(path: Path, content: bytes) -> None:
    # Without the flag, a pipe that nobody reads would be waited for without end; with it, this is an OSError.
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "wb") as file:
        os.set_blocking(descriptor, True)
        file.write(content)


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
