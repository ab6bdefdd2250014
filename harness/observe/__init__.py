"""Reads the servers' counters and descriptions over HTTP.

:mod:`exposition` and :mod:`counters` are pure: they turn ``/metrics`` text into typed counters. :mod:`scrape` takes one
reading, :mod:`settle` waits until the counters are stable, :mod:`observer` records readings around each phase, and
:mod:`server_info` learns each server's settings.
"""
