"""Each wrong call raises, without a network and without a program for streams."""
import asyncio

import librecast


def raises(error, call):
    try:
        call()
    except error as raised:
        assert str(raised), call
    else:
        raise AssertionError(f"no {error}")


for bad in ["", "x" * 256, "x" * 10_000, "fe80::1", "a\0b"]:
    raises(ValueError, lambda: librecast.Channel(bad))
raises(ValueError, lambda: librecast.Channel("x", port=65_536))
raises(librecast.NoNetwork, lambda: librecast.Channel("x", interface="nowhere0"))
raises(ValueError, lambda: librecast.connect("beta", "no-protocol"))
raises(ValueError, lambda: librecast.connect("x" * 10_000, "/x/1"))
raises(librecast.NoNetwork, lambda: librecast.connect("beta", "/x/1"))
raises(librecast.NoNetwork, lambda: librecast.Listener("/x/1", "*"))
raises(librecast.Error, lambda: asyncio.run(librecast.aconnect("beta", "/x/1")))
assert issubclass(librecast.TimedOut, TimeoutError) and issubclass(librecast.NotPermitted, PermissionError)
print("all")
