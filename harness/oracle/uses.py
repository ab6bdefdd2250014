"""The uses of a store: one object for each while somebody looks at it, and columns for what is asked of all of them."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from harness.oracle.blocks import Chain
from harness.oracle.users import Users

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Use:
    """One user's use of the store."""

    start: float
    """The user did nothing before this time."""
    end: float
    """All names in ``certain`` were in the store by then; infinite if not known."""
    released: float
    """The user held nothing after this time."""
    certain: Chain
    """Names that were certainly used, first block first."""
    possible: Chain
    """Names that may have been used, including ``certain``."""
    spare: tuple[int, int] = (0, 0)
    """Lower and upper bound of the places without a name that the user held."""
    copies: int = 0
    """Upper bound on the places taken by second copies of names."""


class Computed(Sequence[T]):
    """``count`` items, each of which ``make`` computes from its index whenever it is asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._places, self._make = range(count), make

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: Any) -> Any:
        """The item, or the items of a slice."""
        if isinstance(index, slice):
            return [self._make(place) for place in self._places[index]]
        return self._make(self._places[index])

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Columns:
    """What is asked of all uses; one item for each in their order."""

    starts: "array[float]"
    ends: "array[float]"
    released: "array[float]"
    copies: "array[int]"
    spare: "array[int]"
    """The upper bound of each."""
    most_spare: int
    """The largest lower bound."""
    sizes: "array[int]"
    """How many names may have been used."""
    possible: Users
    certain: Users

    def but(self, uses: Sequence[Use]) -> "Columns":
        """The columns of uses that have other certain names, and are the same otherwise."""
        return replace(self, certain=Users(use.certain for use in uses))

    @classmethod
    def of(cls, uses: Sequence[Use], possible: Users | None = None) -> "Columns":
        """``possible``: the users of the possible names, if they are known already."""
        times, numbers, same = array("d"), array("i"), True
        for use in uses:
            times.extend((use.start, use.end, use.released))
            numbers.extend((use.copies, *use.spare, len(use.possible)))
            same = same and use.certain == use.possible
        starts, ends, released = (times[column::3] for column in range(3))
        copies, least, most, sizes = (numbers[column::4] for column in range(4))
        users = possible or Users(use.possible for use in uses)
        # In most runs all that is possible is certain, and one table serves for both.
        certain = users if same else Users(use.certain for use in uses)
        return cls(starts, ends, released, copies, most, max(least, default=0), sizes, users, certain)
