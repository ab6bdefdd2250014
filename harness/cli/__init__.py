"""The composition root: the only room that knows all the others."""

from harness.cli.main import main

__all__ = ["main"]
