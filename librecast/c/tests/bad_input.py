"""Each wrong call raises, without a network. Then a program for streams starts, which sends all back."""
import asyncio
import json
import os
import socket
import threading

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


def echo(stream):
    with stream:
        while data := stream.recv(65_536):
            stream.sendall(data)


def answer(server):
    peer = {"peer": "12D3KooWKc8UMdiGHDH1V6LV6jcu9HV3NKWbtyHPKhpWvKG4z327", "name": "beta", "labels": {}, "protocol": "/x/1"}
    while True:
        stream, _ = server.accept()
        while stream.recv(1) != b"\n":
            pass
        stream.sendall(json.dumps({"ok": peer}).encode() + b"\n")
        threading.Thread(target=echo, args=[stream], daemon=True).start()


async def tasks():
    stream = await librecast.aconnect("beta", "/x/1")
    await stream.awrite(b"one")
    assert await stream.aread() == b"one"
    waits = asyncio.create_task(stream.aread())
    await asyncio.sleep(0)
    stream.close()
    try:
        assert await waits == b""
    except librecast.Closed:
        pass


server = socket.socket(socket.AF_UNIX)
server.bind(os.environ["LCROUTE_CONTROL"].replace("control.sock", "streams.sock"))
server.listen()
threading.Thread(target=answer, args=[server], daemon=True).start()
with librecast.connect("beta", "/x/1") as stream:
    assert stream.peer == "beta"
    raises(TimeoutError, lambda: stream.read(timeout=0.01))
    # the caller may do with its descriptor as it likes
    os.close(stream.descriptor())
    stream.write(b"two")
    stream.finish()
    assert stream.read() == b"two"
    assert stream.read() == b""
raises(librecast.Closed, lambda: stream.write(b"three"))
asyncio.run(tasks())
print("all")
