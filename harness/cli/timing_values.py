"""Values of the flags that say when requests are sent and how fast they must be answered."""

import argparse
import math

from harness.load.goodput import METRICS

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def rate(text: str) -> float:
    """Requests per second, above 0; ``inf``: no rate."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number of requests per second above 0")
    return value


def burstiness(text: str) -> float:
    """A number above 0, or ``inf``."""
    value = _number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0, or inf")
    return value


def stages(text: str) -> tuple[tuple[float, float], ...]:
    """``RATE:TIME,...``: requests per second and seconds of each stage."""
    found = tuple(_stage(part) for part in text.split(","))
    if not any(round(requests * time) for requests, time in found):
        raise argparse.ArgumentTypeError(f"{text} has no request: rate times seconds must be 1 or more")
    return found


def _stage(text: str) -> tuple[float, float]:
    requests, colon, time = text.strip().partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not a stage: give RATE:TIME, as in 5:30s")
    value = _number(requests)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{requests!r} is not a rate: give requests per second, 0 or more")
    return value, _time(time)


def _time(text: str) -> float:
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    value = _number(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: give one above 0, as in 30s or 2m")
    return value


def think_time(text: str) -> tuple[float, float]:
    """``S``, or ``LO:HI``: seconds."""
    low, _, high = text.partition(":")
    bounds = _number(low), _number(high or low)
    if not 0 <= bounds[0] <= bounds[1] < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give seconds, 0 or more, or the smaller and the larger as LO:HI")
    return bounds


def objectives(text: str) -> tuple[str, float]:
    """``METRIC:MS``: a latency's name and its limit in milliseconds."""
    name, _, limit = text.partition(":")
    if name not in METRICS:
        raise argparse.ArgumentTypeError(f"{text!r}: give one of {', '.join(METRICS)} and milliseconds, as in ttft:200")
    value = _number(limit)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of milliseconds above 0, as in {name}:200")
    return name, value


def sweep_rates(text: str) -> tuple[float, ...]:
    """``R,R,...``: requests per second, in rising order."""
    found = tuple(sorted({rate(part) for part in text.split(",")}))
    if math.inf in found:
        raise argparse.ArgumentTypeError("a sweep needs finite rates")
    return found


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value
