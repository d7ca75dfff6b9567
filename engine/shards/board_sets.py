"""Leaderboards as sorted sets in Redis (port `BoardSets`).

How to think about it: all sets belong to one generation, which is a part of their keys, and are at one
revision, which is beside it. A change that finds another revision than the one before it begins a new
generation: the old sets are out of reach at once, and are filled again when somebody asks for them. A set
holds its own mark, the empty member: so it cannot lose the mark and keep the rest, nor the other way round.
The mark tells a set that is filled from one that is being filled; both follow every change.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import trio

from engine.aio import call
from engine.scores import Change, Entry, Page, SetsUnavailable
from engine.shards.ports import BusUnavailable
from engine.shards.redis import RedisServices, errors

_log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = 1
"""Of the keys and members: a release that writes others counts on."""

TTL_MS = 6 * 3600 * 1000
"""A set that nobody has read or changed for so long goes; the next reader has it filled again."""
_FILLING_MS = 30_000
_RESPITE_S = 5.0


_APPLY = """
local head = redis.call('HMGET', KEYS[1], 'generation', 'revision')
local generation = head[1]
if not generation or head[2] ~= ARGV[1] then
    redis.call('HSET', KEYS[1], 'generation', ARGV[3], 'revision', ARGV[2])
    return generation or ''
end
local touched = {}
for at = 6, #ARGV, 4 do
    local key = ARGV[5] .. generation .. ':' .. ARGV[at]
    if touched[key] == nil then
        touched[key] = redis.call('ZSCORE', key, '') ~= false
        if touched[key] then redis.call('PEXPIRE', key, ARGV[4]) end
    end
    if touched[key] then
        if ARGV[at + 1] ~= '' then redis.call('ZREM', key, ARGV[at + 1]) end
        if ARGV[at + 2] ~= '' then redis.call('ZADD', key, ARGV[at + 3], ARGV[at + 2]) end
    end
end
redis.call('HSET', KEYS[1], 'revision', ARGV[2])
return 1
"""

_FILL = """
local head = redis.call('HMGET', KEYS[1], 'generation', 'revision')
if not head[1] or head[2] ~= ARGV[1] then return 0 end
local key = ARGV[3] .. head[1] .. ':' .. ARGV[4]
if redis.call('ZSCORE', key, '') == false then redis.call('ZADD', key, 1, '') end
for at = 6, #ARGV, 2 do
    redis.call('ZADD', key, ARGV[at], ARGV[at + 1])
end
redis.call('PEXPIRE', key, ARGV[2])
if ARGV[5] == '1' then
    redis.call('ZADD', key, '+inf', '')
    redis.call('DEL', KEYS[2])
else
    redis.call('PEXPIRE', KEYS[2], 30000)
end
return 1
"""

_FIND = """
local generation = redis.call('HGET', KEYS[1], 'generation')
if not generation then return false end
local key = ARGV[2] .. generation .. ':' .. ARGV[3]
if redis.call('ZSCORE', key, '') ~= 'inf' then return false end
redis.call('PEXPIRE', key, ARGV[1])
local total = redis.call('ZCARD', key) - 1
"""

_SHOW = """
if first > last then return {total} end
local found = redis.call('ZRANGE', key, first, last, 'WITHSCORES')
return {total, first, redis.call('ZCOUNT', key, '-inf', '(' .. found[2]), found}
"""

_PAGE = f"""{_FIND}
local first = tonumber(ARGV[4])
local last = math.min(first + ARGV[5], total) - 1
{_SHOW}"""

_AROUND = f"""{_FIND}
local at = redis.call('ZRANK', key, ARGV[4])
if not at then return false end
local first = math.max(at - ARGV[5], 0)
local last = math.min(at + ARGV[5], total - 1)
{_SHOW}"""


class RedisBoardSets:
    """Port `BoardSets`. When Redis fails, it is left alone for five seconds."""

    def __init__(self, redis: RedisServices) -> None:
        self._client = redis.client
        self._head = f"{redis.cluster}:boards:{VERSION}"
        self._prefix = f"{self._head}:"
        self._apply_script: Any = self._client.register_script(_APPLY)
        self._fill_script: Any = self._client.register_script(_FILL)
        self._page_script: Any = self._client.register_script(_PAGE)
        self._around_script: Any = self._client.register_script(_AROUND)
        self._given_up: list[str] = []
        self._away_until_s = 0.0

    # -- inside of a transaction: asyncio-flavoured ------------------------------------------------

    async def apply(self, revision: int, changes: Sequence[Change]) -> bool:
        return await self._bring(revision - 1, revision, changes)

    async def settle(self, revision: int) -> bool:
        return await self._bring(revision, revision, ())

    async def _bring(self, before: int, after: int, changes: Sequence[Change]) -> bool:
        args: list[object] = [before, after, uuid4().hex[:12], TTL_MS, self._prefix]
        for change in changes:
            old = b"" if change.before is None else change.before.member
            new, score = (b"", 0) if change.after is None else (change.after.member, -change.after.score)
            args += (change.board, old, new, score)
        found = await self._try(self._apply_script, [self._head], args)
        if found == 1:
            return True
        if found:
            self._given_up.append(found.decode())
        return False

    async def fill(self, board: int, revision: int, entries: Sequence[Entry], *, done: bool) -> bool:
        args: list[object] = [revision, TTL_MS, self._prefix, board, int(done)]
        for entry in entries:
            args += (-entry.score, entry.member)
        return bool(await self._try(self._fill_script, [self._head, self._filling(board)], args))

    async def _try(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        if trio.current_time() < self._away_until_s:
            raise SetsUnavailable
        try:
            with errors():
                return await function(*args)
        except BusUnavailable as error:
            _log.warning("the leaderboards in Redis are left alone for %g s: %s", _RESPITE_S, error)
            self._away_until_s = trio.current_time() + _RESPITE_S
            raise SetsUnavailable from error

    # -- trio's --------------------------------------------------------------------------------

    async def revision(self) -> int | None:
        found = await call(self._try, self._client.hget, self._head, "revision")
        return int(found) if isinstance(found, bytes) and found.isdigit() else None

    async def page(self, board: int, place: int, count: int) -> Page | None:
        return _page(await call(self._try, self._page_script, [self._head], self._args(board, place, count)))

    async def around(self, board: int, entry: Entry, reach: int) -> Page | None:
        args = self._args(board, entry.member, reach)
        return _page(await call(self._try, self._around_script, [self._head], args))

    async def begin_filling(self, board: int) -> bool:
        async def begin() -> bool:
            return bool(await self._client.set(self._filling(board), b"1", nx=True, px=_FILLING_MS))

        return await call(self._try, begin)

    async def sweep(self) -> None:
        while self._given_up:
            generation = self._given_up[-1]
            await call(self._try, self._unlink, f"{self._prefix}{generation}:*")
            self._given_up.remove(generation)

    async def _unlink(self, pattern: str) -> None:
        async for key in self._client.scan_iter(match=pattern, count=1000):
            await self._client.unlink(key)

    def _args(self, board: int, *more: object) -> list[object]:
        return [TTL_MS, self._prefix, board, *more]

    def _filling(self, board: int) -> str:
        return f"{self._prefix}filling:{board}"


def _page(found: Any) -> Page | None:
    if not found:
        return None
    if len(found) == 1:
        return Page((), None, None, int(found[0]))
    total, place, higher, flat = found
    entries = [
        Entry.of_member(member, float(negated)) for member, negated in zip(flat[::2], flat[1::2], strict=True)
    ]
    return Page(entries, int(higher) + 1, int(place), int(total))
