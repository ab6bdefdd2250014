"""The page over all nights."""

from pathlib import Path

from bench.nightly import archive
from harness.store.atomic import write_atomically
from markupsafe import Markup
from harness.reports.html.document import document

PAGE = "index.html"


def write_page(result_dir: Path) -> Path:
    """Rebuild the page from the stored nights. Raises OSError."""
    nights = archive.read_all(result_dir)
    body = Markup("<h1>Nights</h1><ul>{}</ul>").format(
        Markup("").join(Markup("<li>{}: {} {}</li>").format(n.name, n.result, "; ".join(n.reasons)) for n in nights)
    )
    path = result_dir / PAGE
    write_atomically(path, document("Nights", body))
    return path
