"""The table of ``python -m bench.faults``: rows in a file, so that a broken run can go on, and text in Markdown."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.fault_cases import GROUPS, Case
from bench.fault_row import COLUMNS, Row

Key = tuple[str, str]
"""A row's group and text."""
_CASES = {(group.name, case.text): case for group in GROUPS.values() for case in group.cases}


@dataclass(slots=True)
class Table:
    """The rows so far, in a directory."""

    directory: Path
    rows: dict[Key, Row] = field(default_factory=dict)

    @classmethod
    def open(cls, directory: Path, *, resume: bool) -> "Table":
        """The table of a directory; ``resume``: with the rows that are there."""
        file = directory / "rows.json"
        stored = json.loads(file.read_text(encoding="utf-8")) if resume and file.exists() else []
        rows = map(Row.read, stored)
        return cls(directory, {(row.group, row.fault): row for row in rows})

    @staticmethod
    def key(case: tuple[str, Case]) -> Key:
        """The key of a case's row; ``case``: its group's name, and the case."""
        return case[0], case[1].text

    def add(self, row: Row) -> None:
        """Add a row, print it, and write all of them."""
        self.rows[row.group, row.fault] = row
        print(" | ".join(row.cells()), flush=True)
        print(f"    {row.evidence}", *(f"\n    {text}" for text in row.remarks), flush=True)
        stored = json.dumps([one.as_json for one in self.rows.values()], indent=1)
        (self.directory / "rows.json").write_text(f"{stored}\n", encoding="utf-8")
        (self.directory / "faults.md").write_text("\n".join(markdown(self.rows)) + "\n", encoding="utf-8")


def markdown(rows: Mapping[Key, Row]) -> Iterator[str]:
    """The rows in the order of the groups, and then what is behind the marks."""
    ordered = sorted(rows, key=_place)
    notes = list(dict.fromkeys(note for key in ordered if (note := _note(key, rows[key]))))
    yield _line(COLUMNS)
    yield _line(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2))
    for key in ordered:
        note = _note(key, rows[key])
        yield _line(rows[key].cells(f" ({_cause(rows[key])}, {1 + notes.index(note)})" if note else ""))
    yield from ("", *(f"{number}. {note}" for number, note in enumerate(notes, 1)))


def _place(key: Key) -> int:
    places = list(_CASES)
    return places.index(key) if key in places else len(places)


def _cause(row: Row) -> str:
    return "engine" if row.engine else "as it must be"


def _note(key: Key, row: Row) -> str:
    """What a row's mark says; empty: it has none."""
    case = _CASES.get(key, Case())
    if row.engine and case.shortfall is not None:
        return f"{_sentence(case.shortfall.what)} To see it: {case.shortfall.reproducer}."
    return _sentence(f"{case.meant}, and the harness says so") if row.meant and case.meant else ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _line(cells: "tuple[str, ...] | list[str]") -> str:
    return f"| {' | '.join(cells)} |"
