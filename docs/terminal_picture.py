"""Draws what a terminal shows of a stored run, as SVG: python docs/terminal_picture.py RUN_DIR OUT.svg."""

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from harness.cli.rejudged import rejudge
from harness.reports.screen.terminal import print_overview

_WIDTH = 118
_FETCHED = re.compile(r"@font-face \{\{.*?\}\}\n", re.DOTALL)
"""Fonts that the picture would fetch from elsewhere. Without them, the reader's own monospace font is used."""


def draw(run_dir: Path) -> str:
    """The picture. Raises UsageError if the directory holds no run."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    print_overview(rejudge(run_dir).overview, console)
    form = re.sub(r"font-family: Fira Code", "font-family: ui-monospace", _FETCHED.sub("", CONSOLE_SVG_FORMAT))
    title = "python -m harness --engine sim --num-prompts 400 --concurrency 16"
    return console.export_svg(title=title, theme=MONOKAI, code_format=form, unique_id="terminal")


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(Path(sys.argv[1])), encoding="utf-8")
