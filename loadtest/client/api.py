"""The HTTP API as a client uses it."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import httpx

from loadtest.client.connection import Message, attempt_member

CONNECTIONS_MAX = 64


class ApiRefused(Exception):
    """The server said no. `message` is its sentence, `path` the field that it is about."""

    def __init__(self, status: int, code: str, message: str, path: str | None = None) -> None:
        super().__init__(status, code, message, path)
        self.status = status
        self.code = code
        self.message = message
        self.path = path

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message.rstrip('.')} ({self.code})"

    @property
    def not_now(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status in (429, 503) and self.code != "session_unavailable"


class ApiUnreachable(Exception):
    """No answer. The request may have been carried out or not."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(url, why)
        self.url = url
        self.why = why

    def __str__(self) -> str:
        return f"{self.url} cannot be reached: {self.why}"


class _Body(httpx.AsyncByteStream):
    """What a request sends. httpx's own is an async generator, which nobody closes when the connection breaks
    in the midst of it: trio then complains."""

    def __init__(self, content: bytes) -> None:
        self._parts = [content]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


class Api:
    """One server. An async context manager.

    Every call raises ApiRefused or ApiUnreachable.

    Args:
        url: address of the HTTP API, without a path.
        author_key: for authoring and for opening sessions, where the server wants one.
        transport: what carries the requests; None is the network.
    """

    def __init__(
        self,
        url: str,
        *,
        author_key: str | None = None,
        timeout_s: float = 20.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._author_key = author_key
        self._http = httpx.AsyncClient(
            base_url=self.url,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX),
            transport=transport,
            trust_env=False,  # the server is often on loopback, which no proxy should see
            verify=self.url.startswith("https:"),  # the authorities take 25 ms to load
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, exc, trace)

    # -- quizzes ----------------------------------------------------------------------------------

    async def add_quiz(self, data: Mapping[str, object], quiz_id: str | None = None) -> tuple[Message, bool]:
        """Id and version, and whether it is new: under an id that exists, an equal quiz changes nothing."""
        response = await self._send(
            "POST", "/api/quizzes", json=data, params={"id": quiz_id} if quiz_id else None, author=True
        )
        return response.json(), response.status_code == 201

    async def quizzes(self, title: str | None = None, owner: str | None = None) -> list[Message]:
        """All that the author may read, by title: with this text in the title, of this owner (or `me`)."""
        found: list[Message] = []
        asked = _given(title=title, owner=owner)
        while True:
            page = await self._get("/api/quizzes", author=True, params=asked)
            found += page["quizzes"]
            if page.get("next") is None:  # from a server of before, nothing
                return found
            asked["cursor"] = page["next"]

    async def quiz(self, quiz_id: str) -> Message:
        """With the right answers: for authors."""
        return await self._get(f"/api/quizzes/{_part(quiz_id)}", author=True)

    async def delete_quiz(self, quiz_id: str) -> None:
        await self._send("DELETE", f"/api/quizzes/{_part(quiz_id)}", author=True)

    # -- sessions ---------------------------------------------------------------------------------

    async def create_session(self, quiz_id: str, settings: Mapping[str, object]) -> Message:
        """Code, host token and WebSocket address of a new session."""
        response = await self._send(
            "POST", "/api/sessions", json={"quiz_id": quiz_id, **settings}, author=True
        )
        return cast(Message, response.json())

    async def sessions(
        self, limit: int = 50, title: str | None = None, owner: str | None = None
    ) -> list[Message]:
        """The last that the author may read, newest first: with this text in the title of the quiz, opened by
        this owner (or `me`)."""
        asked = _given(limit=limit, title=title, owner=owner)
        return cast(list[Message], (await self._get("/api/sessions", author=True, params=asked))["sessions"])

    async def session(self, code: str) -> Message:
        """What everybody may see of it, and its WebSocket address. Authors see also how it came out."""
        return await self._get(f"/api/sessions/{_part(code)}", author=True)

    async def join(self, code: str, name: str) -> Message:
        response = await self._send("POST", f"/api/sessions/{_part(code)}/players", json={"name": name})
        return cast(Message, response.json())

    async def answer(
        self,
        code: str,
        token: str,
        mark: str,
        question: int,
        choice: object,
        *,
        attempt: int = 1,
        play_url: str = "",
    ) -> Message:
        """The `ack`. `mark` is the request's id; `play_url` is the address that the join has told."""
        response = await self._send(
            "POST",
            f"{play_url}/api/sessions/{_part(code)}/answers",
            json={"id": mark, "question": question, "choice": choice} | attempt_member(attempt),
            token=token,
        )
        return cast(Message, response.json())

    async def next(self, code: str, token: str, *, play_url: str = "") -> Message:
        """The `question` or `done_all` of a player who goes at the own pace."""
        path = f"{play_url}/api/sessions/{_part(code)}/next"
        return cast(Message, (await self._send("POST", path, token=token)).json())

    async def host(self, code: str, token: str, mark: str, do: str, **more: object) -> Message:
        """The `done` of a host's command. `mark` is the request's id, `more` what else the command has."""
        response = await self._send(
            "POST", f"/api/sessions/{_part(code)}/host", json={"id": mark, "do": do, **more}, token=token
        )
        return cast(Message, response.json())

    async def take_over(self, key: str) -> Message:
        """A fresh host token, `host_token`: older ones are void from then on."""
        path = f"/api/sessions/{_part(key)}/host-token"
        return cast(Message, (await self._send("POST", path, author=True)).json())

    async def start(self, code: str, token: str) -> Message:
        """The `done` of the host's start of a session that is in its lobby, and of no other."""
        return await self.host(code, token, "start", "start", expect={"number": 0, "phase": "lobby"})

    async def results(self, key: str, token: str | None = None) -> Message:
        """`final` and `players` of the session with this id, or of the last with this code: for authors and
        the host's token, after its end for a player's too."""
        path = f"/api/sessions/{_part(key)}/results.json"
        return cast(Message, (await self._send("GET", path, token=token, author=token is None)).json())

    async def results_csv(self, code: str, token: str | None = None) -> str:
        """Without the mark at the beginning that spreadsheets want."""
        path = f"/api/sessions/{_part(code)}/results.csv?bom=false"
        return (await self._send("GET", path, token=token, author=token is None)).text

    async def delete_session(self, session_id: str, token: str | None = None) -> None:
        """One that is over, by its id for authors."""
        await self._send("DELETE", f"/api/sessions/{_part(session_id)}", token=token, author=token is None)

    async def erase_player(self, session_id: str, player: int, token: str | None = None) -> Message:
        """The neutral name that the player has from then on."""
        path = f"/api/sessions/{_part(session_id)}/players/{player}"
        return cast(Message, (await self._send("DELETE", path, token=token, author=token is None)).json())

    # -- users ------------------------------------------------------------------------------------

    async def leaderboard(self, quiz_id: str, period: str, top: int, day: str | None = None) -> Message:
        """Of users over sessions; `quiz_id` may be `all`."""
        date = "" if day is None else f"&date={day}"
        path = f"/api/leaderboards/{_part(quiz_id)}?period={period}&top={top}{date}"
        return await self._get(path, author=True)

    async def erase_user(self, user_id: str) -> Message:
        """In how many sessions the user had a name, as `sessions`: for authors."""
        return cast(Message, (await self._send("DELETE", f"/api/users/{_part(user_id)}", author=True)).json())

    # -- the cluster ------------------------------------------------------------------------------

    async def cluster(self) -> Message:
        """The nodes as the one that answers knows them: for authors."""
        return await self._get("/api/cluster", author=True)

    async def ops(self) -> Message:
        """What happens just now, as the node that answers sees it: for admins."""
        return await self._get("/api/ops", author=True)

    async def drain(self, name: str) -> None:
        """Have a node move its sessions to the others: for authors."""
        await self._send("POST", f"/api/cluster/nodes/{_part(name)}/drain", author=True)

    # -- the node ---------------------------------------------------------------------------------

    async def alive(self) -> Message:
        """Among others `ws_url`: where the node's WebSocket is."""
        return await self._get("/healthz")

    async def readiness(self) -> Message:
        """`ready`, `reasons` and `degraded`: also an answer when it is not ready."""
        response = await self._send("GET", "/readyz", tolerate=503)
        return cast(Message, response.json())

    async def health(self) -> Message:
        """`state` and `components`: also an answer when one of them is down."""
        response = await self._send("GET", "/health", tolerate=503, author=self._author_key is not None)
        return cast(Message, response.json())

    async def metrics(self) -> str:
        """As Prometheus reads them."""
        return (await self._send("GET", "/metrics")).text

    # -- underneath -------------------------------------------------------------------------------

    async def _get(
        self, path: str, *, author: bool = False, params: Mapping[str, Any] | None = None
    ) -> Message:
        return cast(Message, (await self._send("GET", path, author=author, params=params)).json())

    async def _send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, Any] | None = None,
        token: str | None = None,
        author: bool = False,
        tolerate: int | None = None,
    ) -> httpx.Response:
        token = token or (self._author_key if author else None)
        headers = {"Authorization": f"Bearer {token}"} if token else None
        try:
            request = self._http.build_request(method, path, json=json, params=params, headers=headers)
            request.stream = _Body(request.content)
            response = await self._http.send(request)
        except httpx.TransportError as exc:
            raise ApiUnreachable(self.url, str(exc) or type(exc).__name__) from exc
        if response.is_success or response.status_code == tolerate:
            return response
        raise _refusal(response)


def _given(**params: Any) -> dict[str, Any]:
    """Those that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def _part(text: str) -> str:
    """One part of a path."""
    return quote(text, safe="")


def _refusal(response: httpx.Response) -> ApiRefused:
    """The error as the API words it; a proxy in front may answer in words of its own."""
    status = response.status_code
    told: Any = None
    if response.headers.get("content-type", "").startswith("application/json"):
        try:
            told = response.json()
        except ValueError:
            told = None
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict):
        return ApiRefused(status, f"http_{status}", response.reason_phrase or "no reason given")
    return ApiRefused(status, str(error.get("code")), str(error.get("message")), error.get("path"))
