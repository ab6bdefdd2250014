"""A run as files that other programs read: result.json, JUnit XML."""
