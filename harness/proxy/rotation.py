"""Round robin over the servers."""

from math import lcm


def pair(request: int, prefills: int, decodes: int) -> tuple[int, int]:
    """The P and D that serve the ``request``-th request: two round robins that produce every pair.

    With two servers of each role, advancing both by one would only ever join P0 to D0 and P1 to D1. So D's index skips
    one server whenever both reach the start together; each server's share stays even.
    """
    return request % prefills, (request + request // lcm(prefills, decodes)) % decodes
