"""The script that draws charts: Vega, Vega-Lite and vega-embed, which vl-convert has on board.

Making the script takes a second, so it is kept in the user's cache directory, by the version of vl-convert. A cache
that cannot be read or written costs that second again, and nothing else.
"""

import base64
import binascii
import contextlib
import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from harness.store.atomic import write_atomically

_EXPORTS = "window.vegaEmbed=vegaEmbed;"


@dataclass(frozen=True, slots=True)
class VegaScript:
    """The script as a page carries it: 0.4 MB instead of 0.9 MB."""

    packed: str
    """The script, compressed with gzip and written in base64."""
    digest: str
    """As a Content-Security-Policy names the unpacked script: ``sha256-`` and the hash in base64."""


def vega_script() -> VegaScript:
    """The script from the cache, or made and put there."""
    path = _cache() / f"vega-{version('vl-convert-python')}.gz.txt"
    kept = _read(path)
    return _made(path) if kept is None else kept


def digest_of(script: str) -> str:
    """As a Content-Security-Policy names an inline script, which then may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(path: Path) -> VegaScript | None:
    """The script in the cache; None if there is none, or if it is damaged: gzip has a checksum."""
    try:
        packed = path.read_text("ascii")
        script = gzip.decompress(base64.b64decode(packed, validate=True)).decode()
    except (OSError, EOFError, UnicodeError, binascii.Error, zlib.error):
        return None
    # An empty file unpacks to an empty script.
    return VegaScript(packed, digest_of(script)) if script else None


def _made(path: Path) -> VegaScript:
    # It loads a JavaScript engine, which most runs of the harness need not.
    import vl_convert  # noqa: PLC0415

    script = vl_convert.javascript_bundle(_EXPORTS)
    packed = base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, packed)
    return VegaScript(packed, digest_of(script))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pd-harness"
