"""The shared library, by ctypes, and its errors as exceptions. `librecast.h` describes the functions."""
import ctypes
import os
from typing import Any, Callable, Optional

LIBRARY = "liblibrecast_c.so.0"


class Error(OSError):
    """A call failed. Its text is for people."""


class Closed(Error):
    """The channel, listener or stream is closed."""


class NoNetwork(Error):
    """There is no such interface, or no program for streams answers."""


class NotPermitted(Error, PermissionError):
    """A permission is missing here, or the other node refuses."""


class Unreachable(Error):
    """The node is unknown or away, or its program is."""


class TooLong(Error):
    """The datagram is too long."""


class Ended(Error, ConnectionError):
    """The other side has broken off."""


class TimedOut(Error, TimeoutError):
    """Nothing came in time."""


_ERRORS = {-2: Closed, -3: TimedOut, -4: NoNetwork, -5: NotPermitted, -6: Unreachable, -7: TooLong, -8: Ended}
_BAD_ARGUMENT, _INTERRUPTED = -1, -9

_HANDLE, _RESULT, _TEXT, _BYTES = ctypes.c_int64, ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p
_SIZE, _TIME, _FLAGS = ctypes.c_size_t, ctypes.c_int32, ctypes.c_uint32
FUNCTIONS = {
    "librecast_channel_open": [_TEXT, _TEXT, ctypes.c_uint16, _FLAGS],
    "librecast_channel_group": [_HANDLE, _BYTES, _SIZE],
    # ctypes would take a str for a void pointer
    "librecast_send": [_HANDLE, _TEXT, _SIZE],
    "librecast_receive": [_HANDLE, _BYTES, _SIZE, _TIME, _BYTES],
    "librecast_listened": [_HANDLE, _TIME],
    "librecast_connect": [_TEXT, _TEXT],
    "librecast_listen": [_TEXT, _TEXT, _FLAGS],
    "librecast_accept": [_HANDLE, _TIME],
    "librecast_peer": [_HANDLE, _BYTES, _SIZE],
    "librecast_read": [_HANDLE, _BYTES, _SIZE, _TIME],
    "librecast_write": [_HANDLE, _TEXT, _SIZE],
    "librecast_finish": [_HANDLE],
    "librecast_descriptor": [_HANDLE],
    "librecast_close": [_HANDLE],
}


def _load() -> Any:
    name = os.environ.get("LIBRECAST_LIBRARY", LIBRARY)
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise ImportError(f"{error}: the package librecast-dev has it, or LIBRECAST_LIBRARY names it") from error
    library.librecast_message.restype = ctypes.c_char_p
    library.librecast_version.restype = ctypes.c_char_p
    for function, arguments in FUNCTIONS.items():
        getattr(library, function).argtypes = arguments
        getattr(library, function).restype = _RESULT
    return library


_library = _load()


def version() -> str:
    """Returns the version of the shared library."""
    return str(_library.librecast_version().decode())


def text(value: str, what: str) -> bytes:
    """Returns a string for C, which would end it at a zero byte."""
    if "\0" in value:
        raise ValueError(f"{what} has a zero byte")
    return value.encode()


def call(function: str, *arguments: Any) -> int:
    """Calls a function; raises its error. A signal ends no call, unless its handler raises."""
    while True:
        result = int(getattr(_library, function)(*arguments))
        if result >= 0:
            return result
        if result != _INTERRUPTED:
            message = _library.librecast_message().decode(errors="replace")
            if result == _BAD_ARGUMENT:
                raise ValueError(message)
            raise _ERRORS.get(result, Error)(message)


def filled(length: int, fill: Callable[[Any], int]) -> bytes:
    """Returns the bytes that a function has written into a buffer of this length."""
    buffer = ctypes.create_string_buffer(length)
    count = fill(buffer)
    return buffer.raw[:count]


def milliseconds(timeout: Optional[float]) -> int:
    """Returns a timeout for C; None never ends."""
    if timeout is None:
        return -1
    # not below 0, which would be for ever, and within 32 bits
    return min(max(int(timeout * 1000), 0), 2**31 - 1)
