"""The command line: flags, and one thin module for each command."""

from harness.cli.main import main

__all__ = ["main"]
