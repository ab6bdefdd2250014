"""The command line: its flags, and a thin module for each command."""

from harness.cli.main import main

__all__ = ["main"]
