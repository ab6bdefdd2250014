"""Finds free ports, and checks that a port chosen by the user is free."""

import socket

from harness.errors import UsageError

LOOPBACK = "127.0.0.1"


def free_ports(count: int, *, host: str = LOOPBACK) -> list[int]:
    """Distinct free ports: all are held open until the last one is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def require_free(port: int, flag: str, *, host: str = LOOPBACK) -> int:
    """The port, if it is free. Raises UsageError that names the flag otherwise."""
    with socket.socket() as probe:
        # Servers set this option too. Without it, closed connections in TIME_WAIT would make the port look used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"{flag} {port}: this port on {host} cannot be used ({error.strerror}). End the process that uses it, "
                f"choose another port, or leave {flag} out to use a free port."
            ) from error
    return port
