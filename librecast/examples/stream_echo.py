#!/usr/bin/python3
"""Says a line to a program on another node, and prints what it answers: stream_echo.py NODE PROTOCOL LINE."""
import json
import os
import socket
import sys

node, protocol, line = sys.argv[1:]
control = os.environ.get("LCROUTE_CONTROL", "/run/lcroute/control.sock")
stream = socket.socket(socket.AF_UNIX)
stream.connect(control.replace("control.sock", "streams.sock"))
request = {"cmd": "connect", "node": node, "protocols": [protocol]}
stream.sendall(json.dumps(request).encode() + b"\n")
answer = b""
while not answer.endswith(b"\n"):  # byte by byte: what follows is the stream
    answer += stream.recv(1) or sys.exit("no answer")
peer = json.loads(answer).get("ok") or sys.exit(answer.decode())
print(peer["name"], "speaks", peer["protocol"], file=sys.stderr)
stream.sendall(line.encode() + b"\n")
stream.shutdown(socket.SHUT_WR)
while data := stream.recv(65536):
    sys.stdout.buffer.write(data)
