"""Members for tests."""

from __future__ import annotations

from dataclasses import replace

from engine.shards.ports import Member


def member_of(name: str, run: int = 1, **changes: object) -> Member:
    member = Member(
        name=name,
        run=f"{name}/{run}",
        role="both",
        weight=1,
        http_url=f"http://{name}:5001",
        ws_url=f"ws://{name}:5002/ws",
        play_url=f"http://{name}:5002",
        link_url=f"ws://{name}:5003",
        version="1",
        started_at=run,
    )
    return replace(member, **changes)  # type: ignore[arg-type]  # the caller names fields
