#!/usr/bin/python3
"""Takes streams of all members, and answers each line in capitals: stream_serve.py PROTOCOL."""
import json
import os
import socket
import sys
import threading


def answer(stream, peer):
    with stream, stream.makefile("rw") as lines:
        for line in lines:
            lines.write(peer["name"] + ": " + line.upper())
            lines.flush()


control = os.environ.get("LCROUTE_CONTROL", "/run/lcroute/control.sock")
program = socket.socket(socket.AF_UNIX)
program.connect(control.replace("control.sock", "streams.sock"))
program.sendall(json.dumps({"cmd": "serve", "protocols": [sys.argv[1]], "allow_all": True}).encode() + b"\n")
while True:  # first {"ok": {}}, then a line with a descriptor for each stream
    line, descriptors, _, _ = socket.recv_fds(program, 65536, 1)
    if not line:
        sys.exit("the program for streams has gone")
    said = json.loads(line)
    if "error" in said:
        sys.exit(said["error"])
    for descriptor in descriptors:
        stream = socket.socket(fileno=descriptor)
        threading.Thread(target=answer, args=(stream, said), daemon=True).start()
