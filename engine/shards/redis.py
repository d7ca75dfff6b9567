"""Redis, for what nodes tell each other: the one place that imports redis.

Everything here is lost without harm. So nothing is tried twice, every operation has a time-out, and whatever
goes wrong with Redis or on the way to it is BusUnavailable.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar
from uuid import uuid4

import orjson
import redis.asyncio
import trio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from engine.aio import call
from engine.boundary import Boundary
from engine.domain.errors import DomainError
from engine.domain.quiz import Quiz
from engine.ports import CacheCounts, Owners, QuizCatalog, QuizSummary, StoredQuiz, anyone
from engine.shards.bus_delay import BusDelay
from engine.shards.ports import (
    BUS_BYTES_MAX,
    BUS_VERSION,
    Beat,
    Bus,
    BusMessage,
    BusUnavailable,
    Load,
    Member,
)
from engine.trace import current

_log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT_S = 1.0
_CONNECTIONS_MAX = 32

_QUEUE_MAX = 1000
_BATCH_MAX = 100
_SILENCE_S = 5.0
"""After so long without a message the bus is asked whether it is still there."""
_BACK_OFF_S = (0.1, 2.0)

_DEFINITION_MS = 24 * 3600 * 1000
_NEWEST_MS = 60 * 1000
_VERSIONS_MAX = 100_000
_RESPITE_S = 5.0

_LOAD = tuple(field.name for field in fields(Load))


@contextmanager
def errors() -> Iterator[None]:
    """Whatever goes wrong with Redis, or on the way to it, raises BusUnavailable."""
    try:
        yield
    except (RedisError, OSError) as error:  # OSError includes every time-out
        raise BusUnavailable(f"{type(error).__name__}: {error}") from error
    except AttributeError as error:
        # What asyncio of 3.12 says of a connection that was lost just before something is written to it.
        if error.obj is not None or error.name != "_add_writer":
            raise
        raise BusUnavailable("the connection was lost") from error


async def _ask(function: Callable[..., Awaitable[T]], *args: object) -> T:
    with errors():
        return await call(function, *args)


# One step for Redis, so that no heartbeat can come between finding a run expired and forgetting it. The mark
# is gone when everything was deleted, which the server's own run would not tell.
_BEAT = """
if ARGV[1] ~= '' then
    redis.call('SET', KEYS[2] .. ARGV[1], ARGV[2], 'PX', ARGV[3])
    redis.call('SADD', KEYS[1], ARGV[1])
end
redis.call('SET', KEYS[3], ARGV[4], 'NX')
local found = {}
for _, run in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    local said = redis.call('GET', KEYS[2] .. run)
    if said then
        found[#found + 1] = {run, said, redis.call('PTTL', KEYS[2] .. run)}
    else
        redis.call('SREM', KEYS[1], run)
    end
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
return {server .. ':' .. redis.call('GET', KEYS[3]), found}
"""


class RedisHeartbeats:
    """Port `Heartbeats`: a key with a time to live for each run, and a set of the runs. One round trip.

    `Beat.store_run` changes when the server starts anew, when another takes its place, and when its data was
    deleted.
    """

    def __init__(self, client: redis.asyncio.Redis, cluster: str, *, ttl_s: float) -> None:
        self._client = client
        self._ttl_ms = round(ttl_s * 1000)
        self._node = f"{cluster}:node:"
        self._nodes = f"{cluster}:nodes"
        self._beat = client.register_script(_BEAT)
        self._keys = [self._nodes, self._node, f"{cluster}:store"]

    async def beat(self, member: Member, load: Load) -> Beat:
        return await self._beat_or_look(member.run, _encode({"member": member.to_dict(), "load": load}))

    async def look(self) -> Beat:
        return await self._beat_or_look("", b"")

    async def _beat_or_look(self, run: str, said: bytes) -> Beat:
        args = [run, said, self._ttl_ms, uuid4().hex]
        store_run, found = await _ask(self._beat, self._keys, args)
        members: list[tuple[Member, Load]] = []
        strange: set[str] = set()
        left_s: dict[str, float] = {}
        for listed, data, left_ms in found:
            each = _member(data)
            if each is None:
                strange.add(listed.decode(errors="replace"))
            else:
                members.append(each)
                left_s[each[0].run] = left_ms / 1000
        return Beat(members, store_run.decode(), frozenset(strange), left_s)

    async def withdraw(self, member: Member) -> None:
        await _ask(self._forget, member.run)

    async def _forget(self, run: str) -> None:
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(f"{self._node}{run}")
            pipeline.srem(self._nodes, run)
            await pipeline.execute()


def _encode(message: BusMessage) -> bytes:
    return orjson.dumps({"v": BUS_VERSION, **message})


def _decode(data: object) -> dict[str, Any] | None:
    """None for what is too large, no object of ours, or of a version that is not known."""
    if not isinstance(data, bytes) or len(data) > BUS_BYTES_MAX:
        return None
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or message.pop("v", None) != BUS_VERSION:
        return None
    return message


def _member(data: object) -> tuple[Member, Load] | None:
    message = _decode(data)
    if message is None:
        return None
    try:
        member = Member.parse(message.get("member"))
    except ValueError:
        return None
    load = message.get("load")
    told = load if isinstance(load, dict) else {}
    known = {name: told[name] for name in _LOAD if isinstance(told.get(name), int | float)}
    return member, Load(**known)


@dataclass(frozen=True, slots=True)
class BusStatistics:
    """Since the start; `queued` and `connected` as they are now."""

    connected: bool
    queued: int
    sent: int
    received: int
    dropped: int
    """Not sent, as far as is known: the bus was away, too many waited, or there was no time left."""
    passed_over: int
    """Received, and too large, not understood, or of a version that is not known."""
    connections: int


class RedisBus:
    """Port `Bus` over pub/sub. Connects, and connects again, by itself; messages are lost meanwhile."""

    def __init__(self, client: redis.asyncio.Redis, cluster: str, boundary: Boundary | None = None) -> None:
        self._boundary = boundary or Boundary()
        self._client = client
        self._channel = f"{cluster}:bus"
        self._listeners: list[Callable[[BusMessage], None]] = []
        self._queue: deque[bytes] = deque()
        self._queued = trio.Event()
        self._tried = trio.Event()
        self._connected = False
        self.delay = BusDelay()
        self._sent = self._received = self._dropped = self._passed_over = self._connections = 0

    def publish(self, message: BusMessage) -> None:
        trace = current.get()
        if trace is not None and trace.sampled:
            message = {**message, "traceparent": trace.traceparent}
        data = _encode(message)
        if len(data) > BUS_BYTES_MAX:
            raise ValueError(f"{len(data)} bytes are too many for the bus: at most {BUS_BYTES_MAX}")
        if len(self._queue) >= _QUEUE_MAX:
            self._dropped += 1
            return
        self._queue.append(data)
        self.delay.published(data)
        self._queued.set()

    def listen(self, hear: Callable[[BusMessage], None]) -> None:
        self._listeners.append(hear)

    def statistics(self) -> BusStatistics:
        return BusStatistics(
            self._connected,
            len(self._queue),
            self._sent,
            self._received,
            self._dropped,
            self._passed_over,
            self._connections,
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started when it hears what is published, or when the first attempt at that failed. When it is
        cancelled, what waits is sent before it ends, if that takes no more than a second."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive)
            await self._tried.wait()
            task_status.started()

    async def _send(self) -> None:
        try:
            while True:
                await self._queued.wait()
                self._queued = trio.Event()
                with self._boundary.within("sending over the bus"):
                    await self._send_all()
        finally:
            with (
                self._boundary.within("sending over the bus"),
                trio.move_on_after(_TIMEOUT_S, shield=True),
            ):
                await self._send_all()

    async def _send_all(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), _BATCH_MAX))]
            try:
                await _ask(self._publish, batch)
            except BusUnavailable:
                self._dropped += len(batch)
            except trio.Cancelled:
                self._dropped += len(batch)
                raise
            else:
                self._sent += len(batch)

    async def _publish(self, batch: Sequence[bytes]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for data in batch:
                pipeline.publish(self._channel, data)
            await pipeline.execute()

    async def _receive(self) -> None:
        back_off_s, back_off_max_s = _BACK_OFF_S
        while True:
            began_s = trio.current_time()
            try:
                with self._boundary.within("listening to the bus"):
                    await self._listen()
            finally:
                self._connected = False
            self._tried.set()
            if trio.current_time() - began_s > back_off_max_s:
                back_off_s = _BACK_OFF_S[0]
            await trio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, back_off_max_s)

    async def _listen(self) -> None:
        try:
            await self._subscribe_and_hear()
        except BusUnavailable as error:
            if self._connected or not self._tried.is_set():
                _log.warning("the bus is away: %s", error)

    async def _subscribe_and_hear(self) -> None:
        subscription = self._client.pubsub()
        try:
            await _ask(subscription.subscribe, self._channel)
            while True:
                for message in await _ask(_some, subscription):
                    if message["type"] == "subscribe":
                        self._connected = True
                        self._connections += 1
                        self._tried.set()
                    elif message["type"] == "message":
                        self._hear(message["data"])
        finally:
            with trio.CancelScope(shield=True):
                await call(subscription.aclose)

    def _hear(self, data: object) -> None:
        message = _decode(data)
        if message is None:
            self._passed_over += 1
            return
        self.delay.heard(data)
        self._received += 1
        for hear in self._listeners:
            with self._boundary.within("heeding a message on the bus"):
                hear(message)


async def _some(subscription: Any) -> list[dict[str, Any]]:
    """Waits for a message, and takes what has come with it. A bus that says nothing for long is asked for a
    sign of life: a connection that is cut off without a word would stay silent for ever."""
    message = await subscription.get_message(timeout=_SILENCE_S)
    if message is None:
        await subscription.ping()
        message = await subscription.get_message(timeout=_TIMEOUT_S)
        if message is None:
            raise TimeoutError("the bus gives no sign of life")
    messages: list[dict[str, Any]] = []
    while message is not None and len(messages) < _BATCH_MAX:
        messages.append(message)
        message = await subscription.get_message(timeout=0)
    return messages


class RedisQuizCache:
    """Port `QuizCatalog`: what any node has looked up lately, in front of another catalog.

    A definition is kept for a day; it never changes. Which version is the newest is kept for a minute, and so
    it is old by no more than that. Whatever goes wrong with Redis, the catalog behind is asked, and Redis is
    left alone for five seconds.

    `add` and `delete` announce {"kind": "quiz", "id"} on the bus: each node is to invalidate what it keeps in
    memory.
    """

    def __init__(self, client: redis.asyncio.Redis, cluster: str, bus: Bus, behind: QuizCatalog) -> None:
        self._client = client
        self._key = f"{cluster}:owned-quiz:{BUS_VERSION}"
        self._bus = bus
        self._behind = behind
        self.counts = CacheCounts()
        self._away_until_s = 0.0

    async def add(
        self,
        quiz: Quiz,
        quiz_id: str | None = None,
        owner_id: str | None = None,
        allow: Callable[[str | None], None] = anyone,
    ) -> StoredQuiz:
        stored = await self._behind.add(quiz, quiz_id, owner_id, allow)
        self.counts.invalidations += 1
        await self._try(self._client.delete, self._newest_key(stored.id))
        self._bus.publish({"kind": "quiz", "id": stored.id})
        return stored

    async def get(self, quiz_id: str, version: int | None = None) -> StoredQuiz:
        wanted = version
        if wanted is None:
            newest = await self._try(self._client.get, self._newest_key(quiz_id))
            wanted = int(newest) if isinstance(newest, bytes) and newest.isdigit() else None
        if wanted is not None:
            found = _quiz(await self._try(self._client.get, self._version_key(quiz_id, wanted)))
            if found is not None:
                self.counts.hits += 1
                quiz, created_at, owner_id = found
                return StoredQuiz(quiz_id, wanted, quiz, created_at, owner_id=owner_id)
        self.counts.misses += 1
        stored = await self._behind.get(quiz_id, version)
        await self._try(self._keep, stored, version is None)
        return stored

    async def page(
        self,
        limit: int,
        after: tuple[str, str] | None = None,
        owners: Owners = None,
        title: str | None = None,
    ) -> Sequence[QuizSummary]:
        return await self._behind.page(limit, after, owners, title)

    async def versions(self, quiz_id: str, limit: int) -> Sequence[QuizSummary]:
        return await self._behind.versions(quiz_id, limit)

    async def delete(self, quiz_id: str) -> None:
        versions = [each.version for each in await self._behind.versions(quiz_id, _VERSIONS_MAX)]
        try:
            await self._behind.delete(quiz_id)
        finally:
            keys = [self._newest_key(quiz_id), *(self._version_key(quiz_id, each) for each in versions)]
            self.counts.invalidations += 1
            await self._try(self._client.delete, *keys)
            self._bus.publish({"kind": "quiz", "id": quiz_id})

    async def is_taken(self, quiz_id: str) -> bool:
        return await self._behind.is_taken(quiz_id)

    async def _keep(self, stored: StoredQuiz, newest: bool) -> None:
        if stored.deleted:
            return  # only its sessions ask for it
        definition = orjson.dumps(
            {"quiz": stored.quiz.to_dict(), "created_at": stored.created_at, "owner_id": stored.owner_id}
        )
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.set(self._version_key(stored.id, stored.version), definition, px=_DEFINITION_MS)
            if newest:
                pipeline.set(self._newest_key(stored.id), stored.version, px=_NEWEST_MS)
            await pipeline.execute()

    async def _try(self, function: Callable[..., Awaitable[T]], *args: object) -> T | None:
        """None when Redis is away."""
        if trio.current_time() < self._away_until_s:
            return None
        try:
            return await _ask(function, *args)
        except BusUnavailable as error:
            _log.warning("quizzes are not cached in Redis for %g s: %s", _RESPITE_S, error)
            self._away_until_s = trio.current_time() + _RESPITE_S
            return None

    def _newest_key(self, quiz_id: str) -> str:
        return f"{self._key}:{quiz_id}:newest"

    def _version_key(self, quiz_id: str, version: int) -> str:
        return f"{self._key}:{quiz_id}:{version}"


def _quiz(data: object) -> tuple[Quiz, int, str | None] | None:
    """None for what is not there, and for what another release has written and this one cannot read."""
    if not isinstance(data, bytes):
        return None
    try:
        kept = orjson.loads(data)
        return Quiz.stored(kept["quiz"]), int(kept["created_at"]), kept["owner_id"]
    except (orjson.JSONDecodeError, DomainError, KeyError, TypeError, ValueError):
        return None


class RedisServices:
    """All that a node has of one Redis. `bus.run` is for the caller to run."""

    def __init__(
        self, client: redis.asyncio.Redis, cluster: str, *, ttl_s: float, boundary: Boundary | None = None
    ) -> None:
        self.client = client
        self.cluster = cluster
        self.heartbeats = RedisHeartbeats(client, cluster, ttl_s=ttl_s)
        self.bus = RedisBus(client, cluster, boundary)

    def quiz_cache(self, behind: QuizCatalog) -> RedisQuizCache:
        return RedisQuizCache(self.client, self.cluster, self.bus, behind)


@asynccontextmanager
async def open_redis(
    url: str, cluster: str, *, ttl_s: float, boundary: Boundary | None = None
) -> AsyncIterator[RedisServices]:
    """Needs `open_asyncio()` around it. Does not connect by itself: a Redis that is away is no error here.

    Args:
        url: redis://, rediss:// or unix://.
        cluster: what its keys and its channel begin with.
        ttl_s: of heartbeats.
        boundary: of the node.
    """
    client = redis.asyncio.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=_CONNECTIONS_MAX,
        protocol=2,
    )
    try:
        yield RedisServices(client, cluster, ttl_s=ttl_s, boundary=boundary)
    finally:
        with trio.CancelScope(shield=True):
            await call(client.aclose)
