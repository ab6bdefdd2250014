"""The form in which runs are stored changes only together with a sample of it, by which later versions are tested."""

import json
from dataclasses import dataclass
from enum import StrEnum

from stored_samples import FORM, described, kinds_in, stored_form, then

WHAT_TO_DO = (
    "The stored form has changed. Fields with defaults may be added, since a field at its default is not stored; what "
    "is removed, renamed or needed is converted in harness/store/earlier.py. Then store a run on the simulated pair "
    "that has what is new, and make a sample of it: PYTHONPATH=tests/support python -m stored_samples RUN_DIR WHAT."
)
_EARLIER_KINDS = {"end_tokens"}
"""Kinds of entries that this version does not write."""


def test_the_stored_form_is_that_of_the_newest_sample() -> None:
    assert stored_form() == json.loads(FORM.read_text()), WHAT_TO_DO


def test_every_kind_of_entry_is_in_a_sample() -> None:
    known = set(stored_form()["(kinds of entries)"])
    sampled = set[str]().union(*(kinds_in(said["sample"]) for said in then()))
    assert sampled - {"journal"} - _EARLIER_KINDS == known, WHAT_TO_DO


@dataclass(frozen=True)
class _Inner:
    count: int | None


class _Word(StrEnum):
    ONE = "one"


@dataclass(frozen=True)
class _Outer:
    inner: tuple[_Inner, ...]
    word: _Word


def test_the_form_has_the_fields_and_values_of_whatever_is_stored_inside() -> None:
    assert described(_Outer) == {
        "_Outer": ["inner: tuple[_Inner, ...]", "word: _Word"],
        "_Inner": ["count: int | None"],
        "_Word": ["one"],
    }
