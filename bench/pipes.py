"""Pipes of child processes."""

from typing import TypeVar

T = TypeVar("T")


def there(pipe: T | None) -> T:
    """The pipe of a process that was started with one. Raises ValueError if there is none."""
    if pipe is None:
        raise ValueError("the process has no such pipe")
    return pipe
