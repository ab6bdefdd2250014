"""The ways to send a request and to bring its answer, read by read."""
