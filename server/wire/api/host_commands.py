"""What the host of a session says over the WebSocket: the forms of `host`, as server/wire/api/realtime.py."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from server.wire.api.common import Body, Id, PlayerNumber
from server.wire.api.playing import Expect, Factor


class HostMoves(Body, tag_field="t", tag="host", kw_only=True):
    """The host leads on from what the host saw."""

    id: Id
    do: Literal["start", "next", "close", "skip"]
    expect: Annotated[
        Expect | UnsetType,
        Meta(description="What the host saw. When that is not so any more, the command changes nothing."),
    ] = UNSET


class HostHolds(Body, tag_field="t", tag="host", kw_only=True):
    """The host holds the session, goes on, or ends it."""

    id: Id
    do: Literal["pause", "resume", "finish"]


class HostSwitches(Body, tag_field="t", tag="host", kw_only=True):
    """Whether players come in, and whether they wait for the host."""

    id: Id
    do: Literal["lock", "approval"]
    on: bool


class HostDecides(Body, tag_field="t", tag="host", kw_only=True):
    """On those who wait to be let in."""

    id: Id
    do: Literal["admit", "refuse"]
    player: Annotated[
        PlayerNumber | UnsetType, Meta(description="An `id` of `waiting_list`; without it all of them.")
    ] = UNSET


class HostRemoves(Body, tag_field="t", tag="host", kw_only=True):
    """A player is removed, or in again."""

    id: Id
    do: Literal["kick", "readmit"]
    player: PlayerNumber


class HostGivesTime(Body, tag_field="t", tag="host", kw_only=True):
    """A player's time limit is longer from now on."""

    id: Id
    do: Literal["extra_time"]
    player: PlayerNumber
    factor: Factor


class HostExtends(Body, tag_field="t", tag="host", kw_only=True):
    """The deadline of a session in which players go at their own pace is another."""

    id: Id
    do: Literal["extend"]
    closes_at: Annotated[int, Meta(ge=1, description="In milliseconds since the epoch.")]
