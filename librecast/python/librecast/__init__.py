"""Channels, joins of listeners, and streams on a Librecast network.

Each verb waits. Those that begin with `a` are for asyncio: `await channel.areceive()`.
"""
import asyncio
import ctypes
import functools
import os
from types import TracebackType
from typing import Any, Callable, NamedTuple, Optional, Set, Type, TypeVar

from ._library import (Closed, Ended, Error, NoNetwork, NotPermitted, TimedOut, TooLong, Unreachable, call, filled,
                       milliseconds, text, version)

__all__ = ["Channel", "Closed", "Datagram", "Ended", "Error", "Listener", "NoNetwork", "NotPermitted", "Stream",
           "TimedOut", "TooLong", "Unreachable", "aconnect", "connect", "version"]

_RECEIVE, _WATCH, _OUTSIDE = 1, 2, 4
_ADDRESS = 46
_NAME = 4096
# bytes of the longest datagram of UDP over IPv6
_DATAGRAM = 65527
# an asyncio task waits this long, in seconds, in a thread of its own: then it looks whether it is cancelled
_SLICE = 0.5

_Self = TypeVar("_Self", bound="_Handle")
_Result = TypeVar("_Result")


class Datagram(NamedTuple):
    """A received datagram."""

    data: bytes
    source: str


class _Handle:
    """A handle of the library, closed once."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        # end the waits of tasks
        self._wakes: Set[Callable[[], object]] = set()

    def descriptor(self) -> int:
        """Returns a new descriptor, readable while something waits. The caller closes it."""
        return call("librecast_descriptor", self._handle)

    def close(self) -> None:
        """Closes it, once; threads and tasks that wait in it get an error, or the end of the stream."""
        try:
            call("librecast_close", self._handle)
        except Closed:
            pass
        for wake in list(self._wakes):
            wake()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()

    async def _when_readable(self, attempt: Callable[[], _Result]) -> _Result:
        """Repeats an attempt that does not wait, each time that the descriptor is readable."""
        loop = asyncio.get_running_loop()
        descriptor = self.descriptor()
        try:
            while True:
                try:
                    return attempt()
                except TimedOut:
                    pass
                readable = asyncio.Event()
                wake = functools.partial(loop.call_soon_threadsafe, readable.set)
                self._wakes.add(wake)
                loop.add_reader(descriptor, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(descriptor)
                    self._wakes.discard(wake)
        finally:
            os.close(descriptor)


class Channel(_Handle):
    """The channel of a name, of a key (12D3KooW...) or of a group (ff1e::42).

    With `receive` it joins its group. With `watch` it watches joins of others, which needs CAP_NET_RAW.
    """

    def __init__(self, name: str, *, interface: Optional[str] = None, port: int = 0, receive: bool = False,
                 watch: bool = False) -> None:
        if not 0 <= port < 65536:
            raise ValueError(f"port {port}")
        flags = (_RECEIVE if receive else 0) | (_WATCH if watch else 0)
        interface_text = None if interface is None else text(interface, "interface")
        super().__init__(call("librecast_channel_open", text(name, "name"), interface_text, port, flags))

    @property
    def group(self) -> str:
        """The address of its group."""
        return _text_of("librecast_channel_group", self._handle, _ADDRESS)

    def send(self, data: bytes) -> None:
        """Sends one datagram."""
        call("librecast_send", self._handle, data, len(data))

    def receive(self, timeout: Optional[float] = None) -> Datagram:
        """Waits for a datagram."""
        source = ctypes.create_string_buffer(_ADDRESS)
        data = filled(_DATAGRAM, lambda buffer: call("librecast_receive", self._handle, buffer, _DATAGRAM,
                                                     milliseconds(timeout), source))
        return Datagram(data, source.value.decode())

    async def areceive(self) -> Datagram:
        """Waits for a datagram."""
        return await self._when_readable(lambda: self.receive(0))

    def wait_for_listener(self, timeout: Optional[float] = None) -> bool:
        """Waits until another program listens; False if none does in this time."""
        return call("librecast_listened", self._handle, milliseconds(timeout)) == 1

    async def await_listener(self) -> None:
        """Waits until another program listens."""
        while not await asyncio.to_thread(self.wait_for_listener, _SLICE):
            pass


class Stream(_Handle):
    """A stream to a program on another node: bytes in order, in both directions."""

    @property
    def peer(self) -> str:
        """The name of the node at the other end."""
        return _text_of("librecast_peer", self._handle, _NAME)

    def read(self, length: int = 65536, timeout: Optional[float] = None) -> bytes:
        """Waits for bytes; none at the end."""
        return filled(length, lambda buffer: call("librecast_read", self._handle, buffer, length, milliseconds(timeout)))

    async def aread(self, length: int = 65536) -> bytes:
        """Waits for bytes; none at the end."""
        return await self._when_readable(lambda: self.read(length, 0))

    def write(self, data: bytes) -> None:
        """Writes all bytes; waits while the other side does not read."""
        call("librecast_write", self._handle, data, len(data))

    async def awrite(self, data: bytes) -> None:
        """Writes all bytes."""
        await asyncio.to_thread(self.write, data)

    def finish(self) -> None:
        """Ends writing; reading continues."""
        call("librecast_finish", self._handle)


class Listener(_Handle):
    """Serves a protocol such as "/echo/1", until it is closed.

    `allow`: names, keys and label:KEY=VALUE of nodes that may call, with commas; "*" is each member of the network. With
    `outside`, keys among them may call from outside of this host's networks.
    """

    def __init__(self, protocol: str, allow: str, *, outside: bool = False) -> None:
        flags = _OUTSIDE if outside else 0
        super().__init__(call("librecast_listen", text(protocol, "protocol"), text(allow, "allow"), flags))

    def accept(self, timeout: Optional[float] = None) -> Stream:
        """Waits for the next stream."""
        return Stream(call("librecast_accept", self._handle, milliseconds(timeout)))

    async def aaccept(self) -> Stream:
        """Waits for the next stream."""
        return await self._when_readable(lambda: self.accept(0))


def connect(node: str, protocol: str) -> Stream:
    """Opens a stream to a program on a node: by its name, its key (KEY or KEY@SERVER) or its address."""
    return Stream(call("librecast_connect", text(node, "node"), text(protocol, "protocol")))


async def aconnect(node: str, protocol: str) -> Stream:
    """Opens a stream to a program on a node."""
    return await asyncio.to_thread(connect, node, protocol)


def _text_of(function: str, handle: int, length: int) -> str:
    buffer: Any = ctypes.create_string_buffer(length)
    call(function, handle, buffer, length)
    return str(buffer.value.decode())
