"""For all tests."""

import signal

# A shell that starts the tests in the background has SIGINT ignored in all of them, and in every process that they
# start; a terminal has not.
signal.signal(signal.SIGINT, signal.default_int_handler)
