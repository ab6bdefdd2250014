"""Numbers on the command line, each checked against its range."""

import argparse
import math

_LAST_PORT = 65_535
_SHORTEST_INTERVAL = 0.1
_DAY = 86_400


def natural(text: str) -> int:
    """0 or more."""
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative: give 0 or more")
    return number


def positive(text: str) -> int:
    """1 or more."""
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def port(text: str) -> int:
    """A TCP port."""
    number = positive(text)
    if number > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is not a port: give 1 to {_LAST_PORT}")
    return number


def seconds(text: str) -> float:
    """A finite number of seconds above 0."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text}: give a number of seconds above 0")
    return number


def interval(text: str) -> float:
    """Seconds between two readings of metrics: 0, or 0.1 to a day."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if number != 0 and not _SHORTEST_INTERVAL <= number <= _DAY:
        raise argparse.ArgumentTypeError(f"{text}: give 0, or {_SHORTEST_INTERVAL} to {_DAY:,} seconds")
    return number


def percent(text: str) -> float:
    """A share in percent, above 0 and at most 100."""
    number = seconds(text)
    if number > 100:
        raise argparse.ArgumentTypeError(f"{text}: give a number of percent above 0 and at most 100")
    return number


def ratio(text: str) -> float:
    """A share of 0 or more, and less than 1."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a share of 0 or more, and less than 1")
    return number


def span(text: str) -> tuple[int, int]:
    """``N``, or ``LO:HI``."""
    low, _, high = text.partition(":")
    bounds = positive(low), positive(high or low)
    if bounds[0] > bounds[1]:
        raise argparse.ArgumentTypeError(f"{text} runs backwards: give the smaller number first")
    return bounds


def rates(text: str) -> tuple[int, ...]:
    """``N,N``: the numbers in rising order."""
    return tuple(sorted({positive(word) for word in text.split(",")}))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
