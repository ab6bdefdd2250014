"""Frozen values whose large fields may lie elsewhere and are read when they are asked for.

A run of 100,000 requests has hundreds of millions of numbers: token ids, log-probabilities, times. Kept as Python
objects they would need gigabytes. A value whose large fields are *put away* looks as before to whoever uses it: it has
the same class and attributes, equals the same values, and is copied and pickled with all its fields.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar


class Source(Protocol):
    """Where fields that were put away can be read."""

    @property
    def tokens(self) -> int:
        """Tokens of the value, counted when its fields were put away: see :func:`tokens_put_away`."""

    def read(self, name: str) -> Any:
        """The content of the field."""


class Deferred:
    """Base of dataclasses with slots whose large fields can be put away."""

    __slots__ = ("_kept", "_source")

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


def source_of(value: Deferred) -> Source | None:
    """Where the value's fields that were put away are read; None if none were."""
    try:
        source: Source = object.__getattribute__(value, "_source")
    except AttributeError:
        return None
    return source


def read_from(value: Deferred, source: Source) -> bool:
    """From now on, read the fields that were put away from another source; False if none were."""
    if source_of(value) is None:
        return False
    object.__setattr__(value, "_source", source)
    return True


def tokens_put_away(value: Deferred) -> int | None:
    """How many tokens the value has, known without reading its fields; None if they were not put away."""
    source = source_of(value)
    return None if source is None else source.tokens


V = TypeVar("V", bound=Deferred)
R = TypeVar("R")


def kept_with(value: V, compute: Callable[[V], R]) -> R:
    """``compute(value)``, computed once and kept with the value.

    For a few numbers of a value's large fields, which many ask for. Each class of values has one such function.
    """
    try:
        result: R = object.__getattribute__(value, "_kept")
    except AttributeError:
        result = compute(value)
        object.__setattr__(value, "_kept", result)
    return result
