"""JSON has no NaN and no infinity."""

import math
from collections.abc import Mapping
from typing import Any


def strict(value: Any) -> Any:
    """The value with null in place of numbers that JSON does not have; tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list | tuple) else value
