#!/usr/bin/python3
"""Says a line to a program on another node, and prints what it answers: stream_echo.py NODE PROTOCOL LINE."""
import sys

import librecast

node, protocol, line = sys.argv[1:]
with librecast.connect(node, protocol) as stream:
    print("from", stream.peer, file=sys.stderr)
    stream.write(line.encode() + b"\n")
    stream.finish()
    while data := stream.read():
        sys.stdout.buffer.write(data)
