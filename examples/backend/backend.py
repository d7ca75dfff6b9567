"""The backend of an app: it serves the app's pages, and signs who its users are.

    python backend.py 8000 web jwks.json
    fanfare serve --identity-jwks jwks.json --identity-issuer https://app.example \\
        --identity-audience fanfare --allowed-origins http://127.0.0.1:8000

Then http://127.0.0.1:8000/sign-in?as=ada and http://127.0.0.1:8000/index.html?node=http://127.0.0.1:5001&code=123456.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from http.cookies import SimpleCookie
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.generate()  # a real one is kept where all servers of the app find it
KEY_ID = "2026-11"
USERS = {"ada": {"sub": "user-1001", "name": "Ada"}, "ben": {"sub": "user-1002", "name": "Ben"}}


def identity(user: dict[str, str]) -> str:
    """For an hour: whoever plays on needs no new one."""
    now = int(time.time())
    claims = {**user, "iss": "https://app.example", "aud": "fanfare", "iat": now, "exp": now + 3600}
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": KEY_ID})


def key_set() -> dict[str, object]:
    """What the node checks identities with; it says nothing that is secret."""
    public = jwt.algorithms.OKPAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    return {"keys": [{**public, "kid": KEY_ID, "alg": "EdDSA", "use": "sig"}]}


class App(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        address = urlsplit(self.path)
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("user")
        user = USERS.get(cookie.value) if cookie else None
        if address.path == "/sign-in":  # a real app asks for a password
            name = parse_qs(address.query).get("as", [""])[0]
            if name not in USERS:
                self.send_error(404)
                return
            self.answer({}, **{"Set-Cookie": f"user={name}; HttpOnly; SameSite=Lax; Path=/"})
        elif address.path == "/identity":
            self.answer({"identity": identity(user) if user else None})
        else:
            super().do_GET()

    def answer(self, body: dict[str, object], **headers: str) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Type": "application/json",
            "Cache-Control": "no-store",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port, folder, keys = sys.argv[1:]
    Path(keys).write_text(json.dumps(key_set()))
    with ThreadingHTTPServer(("127.0.0.1", int(port)), partial(App, directory=folder)) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
