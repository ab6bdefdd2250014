"""Whose turn it is."""

from itertools import count
from math import lcm


class Rotation:
    """Round robin over several P and several D."""

    def __init__(self, prefills: int, decodes: int) -> None:
        self._shape = prefills, decodes
        self._requests = count()

    def next_pair(self) -> tuple[int, int]:
        """The indices of the next request's P and D."""
        return pair(next(self._requests), *self._shape)


def pair(request: int, prefills: int, decodes: int) -> tuple[int, int]:
    """Which P and which D serve the ``request``-th request: two round robins that meet in every pair.

    Stepping both at once would, with two of each, only ever join P0 to D0 and P1 to D1. So D's turn slips by one
    whenever both come round together; each server's share stays even.
    """
    return request % prefills, (request + request // lcm(prefills, decodes)) % decodes
