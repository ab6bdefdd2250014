"""Scenarios carried out: what is sent when, what is recorded, and what is asked to verify it."""
