"""Frozen values whose large fields may lie elsewhere and are read when they are asked for.

A run of 100,000 requests has hundreds of millions of numbers: token ids, log-probabilities, times. Kept as Python
objects they would need gigabytes. A value whose large fields are *put away* looks as before to whoever uses it: it has
the same class and attributes, equals the same values, and is copied and pickled with all its fields.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol


class Source(Protocol):
    """Where fields that were put away can be read."""

    def read(self, name: str) -> Any:
        """The content of the field."""


class Deferred:
    """Base of dataclasses with slots whose large fields can be put away."""

    __slots__ = ("_source",)

    if not TYPE_CHECKING:
        # Python calls this method for a slot without a content only, so that other fields cost nothing.
        def __getattr__(self, name: str) -> Any:
            if name not in type(self).__slots__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return self._source.read(name)


def put_away(value: Deferred, names: Iterable[str], source: Source) -> None:
    """Forget the fields; from now on they are read from ``source``. May be called while other threads read them."""
    # In this order, a thread that finds a slot without a content always finds the source.
    object.__setattr__(value, "_source", source)
    for name in names:
        try:
            object.__delattr__(value, name)
        except AttributeError:
            # It was put away before.
            continue
