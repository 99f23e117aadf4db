"""The listening socket: how it is had, and how it is given up without losing anybody.

Closing a listening socket resets the connections that the kernel has accepted and the process has
not. So first no new ones are let in, then the last ones are taken, then it is closed.
"""

from __future__ import annotations

import ctypes
import resource
import socket
import struct
import sys
from typing import Final

from service.errors import InvalidConfiguration

# Connections that the kernel holds while the event loop is busy; it takes net.core.somaxconn at most. What
# does not fit is dropped, and its client tries again after one second, two, four, ….
_BACKLOG: Final = 16_384

# Files, models, pipes; a generous guess.
_OTHER_DESCRIPTORS: Final = 256

# Linux: SO_ATTACH_FILTER takes a classic BPF program, which sees each packet from its TCP header on.
_SO_ATTACH_FILTER: Final = 26
_DROP_NEW_CONNECTIONS: Final = (
    (0x30, 0, 0, 13),  # load the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of them
    (0x15, 0, 1, 0x02),  # SYN alone, the wish for a new connection?
    (0x06, 0, 0, 0),  # drop it: the client tries again, and is refused by then
    (0x06, 0, 0, 0xFFFFFFFF),  # let everything else pass
)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidConfiguration: The address cannot be had; says why.
    """
    listener = bound(host, port)
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def limit_unread_answers(listener: socket.socket, timeout_ms: int) -> None:
    """Have the kernel reset every connection of this listener whose client stops taking in what it is sent.

    That frees the memory and the descriptor of clients that vanished without a word, and of those that ask
    and never read. Connections inherit the option. Linux only.
    """
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def bound(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A socket that has the address and does not listen.

    Args:
        host: Address or name.
        port: 0: any free one.
        is_shared: Whether other sockets, so marked as well, may have the address too.

    Raises:
        InvalidConfiguration: The address cannot be had; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        holder = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidConfiguration(f"cannot listen on {host}: {error.strerror}") from error
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        holder.close()
        raise InvalidConfiguration(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return holder


def raise_descriptor_limit(connections: int) -> None:
    """Let this process have a file descriptor for each connection, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def admit_no_more(listener: socket.socket) -> None:
    """Have the kernel let no new connection in; those on their way still arrive. Linux only."""
    if sys.platform != "linux":
        return
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _DROP_NEW_CONNECTIONS)
    instructions = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(_DROP_NEW_CONNECTIONS), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
