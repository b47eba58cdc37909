#!/usr/bin/python3
"""Sends the time each second while somebody listens: `lcroute listen GROUP` shows it."""
import sys
import time

import librecast

with librecast.Channel("example.org/time", watch=True) as channel:
    print(channel.group, file=sys.stderr)
    while channel.wait_for_listener():
        text = f"{int(time.time())}\n"
        channel.send(text.encode())
        print(text, end="", flush=True)
        time.sleep(1)
