"""Verification of outputs: which requests are sent (``asking``), and what the answers show (``judging``)."""
