#!/usr/bin/python3
"""Takes streams of all members, and answers each line in capitals: stream_serve.py PROTOCOL."""
import sys
import threading

import librecast


def answer(stream):
    with stream:
        line = b""
        while data := stream.read(4096):
            *lines, line = (line + data).split(b"\n")
            for whole in lines:
                stream.write(stream.peer.encode() + b": " + whole.upper() + b"\n")


with librecast.Listener(sys.argv[1], "*") as listener:
    while True:
        threading.Thread(target=answer, args=[listener.accept()], daemon=True).start()
