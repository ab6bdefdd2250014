"""Load: when requests are due, the client that sends them, and what it measured."""
