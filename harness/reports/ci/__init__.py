"""A run shown by a CI system: annotations of GitHub Actions and Buildkite, and GitHub's step summary."""

from harness.reports.ci.announce import announce, announce_rows

__all__ = ["announce", "announce_rows"]
