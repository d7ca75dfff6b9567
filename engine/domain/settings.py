"""How one session is run: chosen when it is created, fixed from then on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal

from engine.domain.fields import Fields, Problems

Pace = Literal["host", "auto"]

PACES: Final[tuple[Pace, ...]] = ("host", "auto")
PLAYER_LIMIT_MAX: Final = 200_000
REVEAL_MIN_MS: Final = 100
REVEAL_MAX_MS: Final = 600_000
LOBBY_MAX_MS: Final = 86_400_000

_FIELDS: Final = ("pace", "player_limit", "reveal_ms", "lobby_ms", "early_close")


@dataclass(frozen=True, slots=True)
class Settings:
    """Who advances, and what the limits are.

    Args:
        pace: `host`: the host opens each question; `auto`: the clock does.
        player_limit: players at a time, kicked ones not counted.
        reveal_ms: `auto` only: how long a closed question is shown before the next.
        lobby_ms: `auto` only: the session starts by itself that long after its creation; None waits for
            the host.
        early_close: a question closes as soon as every player who is in has answered it.

    Raises:
        DomainError: `bad_field`, with the path of the setting.
    """

    pace: Pace = "host"
    player_limit: int = 10_000
    reveal_ms: int = 5_000
    lobby_ms: int | None = None
    early_close: bool = True

    def __post_init__(self) -> None:
        self._read(Fields(self.to_dict(), "", Problems(1), _FIELDS))

    @classmethod
    def parse(cls, data: object, path: str = "") -> Settings:
        """From a document; what is absent has its default.

        Raises:
            DomainError: the first thing that is wrong; its path begins with `path`.
        """
        fields = Fields.of(data, path, Problems(1), _FIELDS)
        assert fields is not None, "with a bound of one, the first problem is raised"
        pace, player_limit, reveal_ms, lobby_ms, early_close = cls._read(fields)
        return cls(pace, player_limit, reveal_ms, lobby_ms, early_close)

    @staticmethod
    def _read(fields: Fields) -> tuple[Pace, int, int, int | None, bool]:
        pace: Pace = "auto" if fields.one_of("pace", PACES, default="host") == "auto" else "host"
        player_limit = fields.whole("player_limit", 1, PLAYER_LIMIT_MAX, default=10_000)
        reveal_ms = fields.whole("reveal_ms", REVEAL_MIN_MS, REVEAL_MAX_MS, default=5_000)
        lobby_ms = None
        if fields.get("lobby_ms") is not None:
            lobby_ms = fields.whole("lobby_ms", 0, LOBBY_MAX_MS, default=0)
            if pace == "host":
                fields.add("lobby_ms", "only a session with the pace `auto` starts by itself")
        return pace, player_limit, reveal_ms, lobby_ms, fields.flag("early_close", default=True)

    def to_dict(self) -> dict[str, object]:
        """The document: `Settings.parse(settings.to_dict()) == settings`."""
        return asdict(self)
