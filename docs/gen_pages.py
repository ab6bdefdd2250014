"""Writes the pages that are made from the code, and puts them into the navigation. mkdocs-gen-files runs it."""

import sys
from pathlib import Path

import mkdocs_gen_files

sys.path.insert(0, str(Path(__file__).parent))

from generated_pages import command_line, contributing, entries, faults, readme, workloads

SECTIONS = {"Faults": faults.pages, "Workloads": workloads.pages}
"""The pages that are appended to a section of the navigation."""


def _write(path: str, text: str) -> None:
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


for section in mkdocs_gen_files.config["nav"]:
    title, listed = next(iter(section.items())) if isinstance(section, dict) else ("", [])
    if title in SECTIONS:
        written = dict(SECTIONS[title]())
        for path, text in written.items():
            _write(path, text)
        listed.extend(path for path in written if path not in listed)
for path, text in (*command_line.pages(), *entries.pages(), *contributing.pages(), *readme.pages()):
    _write(path, text)
