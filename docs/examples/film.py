"""Orders a film over HTTP and is told when it is ready; nothing but Python's standard library.

    REELHAUL=http://127.0.0.1:3000 TOKEN=... NOTIFY_SECRET=whsec_... python3 film.py "a paper boat" https://example.com/boat.png

The picture may be a file: it is uploaded.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

REELHAUL, TOKEN, SECRET = os.environ["REELHAUL"], os.environ["TOKEN"], os.environ["NOTIFY_SECRET"]
TOLERANCE_SECONDS = 300


def verified(headers, body):
    """The content of a notification; None for a message that reelhaul did not sign, or that is too old."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return None
    signed = f"{message_id}.{timestamp}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    for entry in headers.get("webhook-signature", "").split():
        version, _, signature = entry.partition(",")
        if version == "v1" and hmac.compare_digest(signature, wanted):
            return json.loads(body)
    return None


class Hook(BaseHTTPRequestHandler):
    told = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        Hook.told = verified(self.headers, body)
        self.send_response(401 if Hook.told is None else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


def asked(path, body, content_type):
    """The answer to a POST."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type}
    request = urllib.request.Request(REELHAUL + path, data=body, headers=headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def picture(argument):
    """The picture of a request: a URL as it is, a file by its upload."""
    if not os.path.isfile(argument):
        return argument
    with open(argument, "rb") as file:
        return {"input": asked("/v1/inputs", file.read(), "application/octet-stream")["id"]}


hook = HTTPServer(("127.0.0.1", 0), Hook)
try:
    order = {
        "request": {"prompt": sys.argv[1], "image": picture(sys.argv[2])},
        "notifyUrl": f"http://127.0.0.1:{hook.server_port}/",
    }
    generation = asked("/v1/generations", json.dumps(order).encode(), "application/json")
except urllib.error.HTTPError as error:
    for problem in json.load(error).get("problems", []):
        print(f"{problem['path']}: {problem['message']}")
    sys.exit(1)

print("generation", generation["id"], flush=True)
while Hook.told is None:
    hook.handle_request()
print(Hook.told["type"], Hook.told["data"]["id"])
