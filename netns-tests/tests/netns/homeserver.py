"""A Matrix homeserver of one process, as far as lcroute-reach asks it anything, and as unfriendly as a test wants.

homeserver.py ADDRESS PORT USER=TOKEN...    all are invited to the room, which is #lc:ADDRESS as well
If there is a file tls.pem, it has the key and the certificate that the next connection sees.
POST /test/... changes what it does: revoke/USER evict/USER forbid limit garbage normal
"""
import json
import os
import ssl
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOM = "!meet:server"
address, port = sys.argv[1], int(sys.argv[2])
tokens = {token: user for user, token in (pair.split("=") for pair in sys.argv[3:])}
changed = threading.Condition()
joined, events, mode, changes = set(), [], "normal", 0


def error(status, code, **more):
    return status, {"errcode": code, "error": "no", **more}


def state(events):
    return list({event["state_key"]: event for event in events}.values())


def sync(user, query):
    since = int(query.get("since", ["0"])[0])
    wait = int(query.get("timeout", ["0"])[0]) / 1000
    types = json.loads(query["filter"][0])["room"]["state"]["types"]
    with changed:
        before = changes
        changed.wait_for(
            lambda: len(events) > since or user not in joined or changes != before, wait
        )
        now = {"next_batch": str(len(events))}
        if user not in joined:
            return 200, {**now, "rooms": {"leave": {ROOM: {"state": {"events": []}}}}}
        new = [event for event in events[since:] if event["type"] in types]
        room = {"state": {"events": []}, "timeline": {"events": new, "limited": False}}
        if since == 0:
            room = {"state": {"events": state(new)}, "timeline": {"events": []}}
        return 200, {**now, "rooms": {"join": {ROOM: room}} if new else {}}


def answer(method, path, query, user, body):
    if path == ["account", "whoami"]:
        return 200, {"user_id": user, "device_id": "D"}
    if path[0] == "join" and method == "POST":
        if urllib.parse.unquote(path[1]) not in (ROOM, f"#lc:{address}"):
            return error(404, "M_NOT_FOUND")
        with changed:
            joined.add(user)
        return 200, {"room_id": ROOM}
    if path == ["sync"]:
        return sync(user, query)
    if path[0] == "rooms" and path[2] == "state" and method == "PUT":
        kind, key = path[3], urllib.parse.unquote(path[4])
        if user not in joined or key != user or mode == "forbid":
            return error(403, "M_FORBIDDEN")
        if mode == "limit":
            return error(429, "M_LIMIT_EXCEEDED", retry_after_ms=1500)
        event = {"type": kind, "state_key": key, "sender": user, "content": json.loads(body)}
        with changed:
            events.append(event)
            changed.notify_all()
        return 200, {"event_id": f"${len(events)}"}
    return error(404, "M_UNRECOGNIZED")


def change(words):
    global mode, tokens, changes
    with changed:
        changes += 1
        if words[0] == "revoke":
            tokens = {token: user for token, user in tokens.items() if user != words[1]}
        elif words[0] == "evict":
            joined.discard(words[1])
        else:
            mode = words[0]
        changed.notify_all()
    return 200, {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one(self):
        url = urllib.parse.urlsplit(self.path)
        path = url.path.removeprefix("/_matrix/client/v3/").split("/")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        user = tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if path[:2] == ["", "test"]:
            status, said = change(path[2:])
        elif user is None:
            status, said = error(401, "M_UNKNOWN_TOKEN", soft_logout=False)
        else:
            status, said = answer(self.command, path, urllib.parse.parse_qs(url.query), user, body)
        said = json.dumps(said).encode()
        if mode == "garbage" and path == ["sync"]:
            said = b'{"next_batch": "' + b"[" * 10_000_000
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = handle_one

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def finish_request(self, request, client_address):
        if os.path.exists("tls.pem"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain("tls.pem")
            request = context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        print(repr(sys.exc_info()[1]), file=sys.stderr, flush=True)


server = Server((address, port), Handler)
server.daemon_threads = True
print("serves", flush=True)
server.serve_forever()
