"""A run on the screen: its overview on a terminal, or as plain lines."""
