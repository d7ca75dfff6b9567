"""What is said to a node: good messages, and what becomes of them when something in them is changed."""

# ruff: noqa: RUF001 - characters that look like others are what is to be tried

from __future__ import annotations

import base64
import hmac
import json
import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

T = TypeVar("T")

JUNK: Sequence[object] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1.5, -0.0, 2**31, 2**31 - 1, 2**53, 2**63, -(2**63), 2**64, 10**40),
    *(1e308, float("inf"), float("nan"), "", " ", "0", "null", "a", "\0", "a\0b", "\ud800", "\udfff\ud800"),
    *(
        "x" * 300,
        "ä" * 5_000,
        "\u202eabc",
        "‮",
        "🎉" * 100,
        "a\r\nb: c",
        "%00",
        "../../etc/passwd",
        "${x}",
        "'; --",
    ),
    *([], {}, [[]], [0], ["a"], [None] * 100, {"": ""}, {"a": {"b": {"c": []}}}, "١٢٣٤٥٦", "1_0", "１２３"),
)

UUID = "0193b2a0-7d4c-7000-8000-000000000001"
KEYS: Sequence[str] = (
    *("000000", "999999", "123456", "12345", "1234567", "1_2345", "+12345", "-12345", "12 345", "١٢٣٤٥٦"),
    *("１２３４５６", "²23456", "1e5", "0x1234", UUID, UUID.upper(), UUID.replace("-", ""), "{" + UUID + "}"),
    *("urn:uuid:" + UUID, UUID + "0", UUID[:-1], "1_2_3_4_5_6_7_8_9_0_1_2_3_4_5_67", "0" * 32, "-" * 36),
    *(
        "0193b2a0_7d4c_7000_8000_000000000001",
        "null",
        "\0" * 6,
        "%",
        "%00",
        "%ff%fe",
        "..",
        ".",
        "~",
        "a" * 4_000,
    ),
    *(
        UUID[:18] + " " + UUID[19:],
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "00000000-0000-0000-0000-000000000000",
    ),
)


IDENTITY_SECRET = "the-app-and-the-nodes-share-these-32-bytes"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Grammar:
    """Draws from a seed.

    Args:
        keys: codes and ids of sessions that are there.
        tokens: that are good.
        secret: what opens the doors of authors.
    """

    def __init__(self, seed: int, keys: Sequence[str], tokens: Sequence[str], secret: str) -> None:
        self.rng = random.Random(seed)
        self.keys = list(keys)
        self.tokens = list(tokens)
        self.secret = secret

    def one(self, of: Sequence[T]) -> T:
        return self.rng.choice(of)

    def often(self, share: float) -> bool:
        return self.rng.random() < share

    def key(self) -> str:
        """Of a session, or of none."""
        if self.often(0.5):
            return self.one(self.keys)
        return self.one(KEYS) if self.often(0.8) else self.text(self.one(self.keys))

    def token(self) -> str:
        if self.often(0.5):
            return self.one(self.tokens)
        if self.often(0.2):
            return self.secret
        return self.text(self.one(self.tokens)) if self.often(0.7) else str(self.one(JUNK))

    def identity(self) -> str:
        """As an app signs it; or what was signed is another, or the signature is."""
        user = f"user {self.rng.randrange(50)}"
        claims = {"sub": user, "name": "Fuzz", "exp": 4_000_000_000, "locale": "en", "extra_time": 1.5}
        head = {"alg": self.one(("HS256", "HS256", "HS256", "none", "EdDSA", "RS256")), "kid": "a"}
        signed = ".".join(
            _base64(self.dumped(self.changed(each, 1 if self.often(0.3) else 0))) for each in (head, claims)
        )
        token = f"{signed}.{_base64(hmac.digest(IDENTITY_SECRET.encode(), signed.encode(), 'sha256'))}"
        return self.text(token) if self.often(0.2) else token

    def text(self, text: str) -> str:
        """A character of it is another, missing, or there twice."""
        if not text:
            return "x"
        at = self.rng.randrange(len(text))
        middle = self.one(("", text[at] * 2, self.one("._-0aZ=\0ä\u202e"), text[at:] * 2))
        return text[:at] + middle + text[at + 1 :]

    def value(self) -> object:
        if self.often(0.05):
            return self._deep(self.rng.randrange(1, 400))
        return deepcopy(self.one(JUNK))  # it becomes part of what may be changed

    def _deep(self, levels: int) -> object:
        found: object = 0
        for _ in range(levels):
            found = [found] if self.often(0.5) else {"a": found}
        return found

    def changed(self, data: object, changes: int | None = None) -> object:
        """A copy in which some places are not what they were."""
        copy = json.loads(json.dumps(data))
        for _ in range(self.rng.randrange(3) if changes is None else changes):
            copy = self._change(copy)
        return copy

    def _change(self, data: Any) -> object:
        if isinstance(data, dict) and data and self.often(0.9):
            name = self.one(list(data))
            what = self.rng.randrange(5)
            if what == 0:
                del data[name]
            elif what == 1:
                data[self.text(name)] = self.value()
            elif what == 2:
                data[name] = self._change(data[name])
            else:
                data[name] = self.value()
            return data
        if isinstance(data, list) and data and self.often(0.9):
            at = self.rng.randrange(len(data))
            data[at] = self._change(data[at])
            if self.often(0.2):
                data *= self.one((0, 2, 50))
            return data
        return self.value()

    def dumped(self, data: object) -> bytes:
        """JSON, most of the time."""
        said = json.dumps(data, ensure_ascii=self.often(0.7)).encode("utf-8", "surrogatepass")
        return self.bytes(said) if self.often(0.1) else said

    def bytes(self, data: bytes) -> bytes:
        """Some of them are others."""
        found = bytearray(data or b"x")
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(len(found))
            what = self.rng.randrange(3)
            if what == 0:
                found[at] = self.rng.randrange(256)
            elif what == 1:
                del found[at:]
                found += b"\0"
            else:
                found[at:at] = self.rng.randbytes(self.rng.randrange(1, 9))
        return bytes(found)

    # -- what clients say ------------------------------------------------------------------------

    def client_message(self) -> bytes:
        """Of the protocol on WebSockets."""
        return self.dumped(self.changed(self.one(self._client_messages())))

    def hub_message(self) -> object:
        """Of a client of SignalR, as a JSON object or, where it calls something, perhaps the flat form."""
        said = dict(self.one(self._client_messages()))
        target = str(said.pop("t")).capitalize()
        arguments: list[object] = list(said.values()) if self.often(0.2) else [said]
        call = {"target": self.one((target,) * 9 + ("Watch", "Jump")), "arguments": arguments}
        number = str(self.rng.randrange(4))
        if self.often(0.8):
            call |= {"type": 1, "invocationId": number} if self.often(0.8) else {"type": 1}
            return self.changed(call) if self.often(0.3) else call
        others = (
            {"type": 2, "invocationId": number, "item": self.value()},
            {"type": 3, "invocationId": number, "result": self.value()},
            {"type": 4, "invocationId": number, **call},
            {"type": 5, "invocationId": number},
            {"type": 6},
            {"type": 7, "error": self.value()},
            {"type": 8, "sequenceId": self.value()},
            {"type": 9, "sequenceId": self.value()},
            {"type": self.value()},
        )
        found = self.one(others)
        return self.changed(found) if self.often(0.3) else found

    def hub_handshake(self) -> tuple[bytes, bool]:
        """The first record of a client, and whether it asks for MessagePack."""
        packs = self.often(0.4)
        asks = {"protocol": "messagepack" if packs else "json", "version": 1}
        return self.dumped(self.changed(asks) if self.often(0.1) else asks) + b"\x1e", packs

    def join(self) -> Mapping[str, object]:
        return self.one(self._client_messages()[:5])

    def _client_messages(self) -> Sequence[Mapping[str, object]]:
        key = self.key()
        return (
            {"t": "join", "code": key, "name": f"Fuzz {self.rng.randrange(10_000)}"},
            {"t": "join", "code": key, "token": self.token(), "epoch": 1, "offset": 3},
            {"t": "join", "code": key, "role": "spectator"},
            {"t": "join", "code": key, "token": self.token()},
            {"t": "join", "code": key, "identity": self.identity(), "epoch": 1, "offset": 3},
            {"t": "answer", "id": "a", "question": 1, "choice": self.one((0, [0], True, "a", 1.5))},
            {"t": "next", "id": "n"},
            {"t": "next", "id": "n", "attempt": self.one((1, 2))},
            {"t": "answer", "id": "a", "question": 1, "choice": 0, "attempt": self.one((1, 2))},
            {"t": "host", "id": "h", "do": self.one(("start", "next", "close", "pause", "resume"))},
            {"t": "host", "id": "h", "do": "extra_time", "player": 1, "factor": self.one((1.5, "untimed"))},
            {"t": "host", "id": "h", "do": "extend", "closes_at": 2_000_000_000_000},
            {"t": "host", "id": "h", "do": "kick", "player": 1},
            {"t": "host", "id": "h", "do": "lock", "on": True},
            {"t": "ping", "at": 1.5},
            {"t": "leave"},
        )

    def quiz(self) -> Mapping[str, object]:
        question: dict[str, object] = {"text": "Which?", "time_limit_s": 5}
        question |= self.one(
            (
                {"type": "single", "choices": ["a", "b"], "correct": "a"},
                {"type": "multiple", "choices": ["a", "b"], "correct": ["a"]},
                {"type": "true_false", "correct": True},
                {"type": "text", "correct": ["a", "b"]},
                {"type": "numeric", "correct": 3, "tolerance": 0.5},
            )
        )
        return {"title": "Fuzz", "language": "en", "questions": [question] * self.one((1, 2))}

    def settings(self) -> Mapping[str, object]:
        if self.often(0.3):
            return {
                "pace": "self",
                "player_limit": 20,
                "open_ms": 60_000,
                "untimed": self.often(0.5),
                "reveal": self.one(("each", "end", "deadline", "never")),
                "shuffle_questions": self.often(0.5),
                "attempts": self.one((1, 2, 100)),
            }
        return {
            "pace": self.one(("host", "auto")),
            "player_limit": 20,
            "reveal_ms": 200,
            "early_close": True,
            "names": self.one(("chosen", "given")),
            "board": self.one(("at_close", "live")),
        }
