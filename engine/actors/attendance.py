"""Attendance: the coming and going of the host, and of the players that questions are held open for."""

from __future__ import annotations

from engine.actors.admission import AdmissionControl
from engine.actors.clock import SessionClock
from engine.actors.delivery.audience import Audience
from engine.actors.delivery.fanout import Slicer
from engine.actors.delivery.roster import Roster
from engine.actors.presence import Presence
from engine.domain.session import Phase, Session

AWAY_AT_ONCE_MAX = 100
"""The most players that are found to be gone between two checkpoints."""


class Attendance:
    """Learns from the audience which seats are taken and left, and tells the session and the host's roster.

    A connected host is told of every player that connects, disconnects, joins or is removed. A session that
    closes questions early waits only for present players, and so does each for those with extra time.
    """

    def __init__(
        self, session: Session, audience: Audience, admission: AdmissionControl, clock: SessionClock
    ) -> None:
        self._session = session
        self._audience = audience
        self._admission = admission
        self._clock = clock
        self.roster: Roster | None = None
        """The changes that the host has yet to be told; None while no host is connected."""
        self.hostless_since: int | None = clock.now_ms()
        """Since when no host is connected, as far as this actor knows; None while a host is connected."""
        self._of_all = session.settings.early_close and session.self_pace is None
        """Whether questions are held open for all present players; else for those with extra time alone."""
        players = (player for player, who in session.players.items() if not who.kicked)
        waited_for = players if self._of_all else session.with_extra_time
        self._presence = Presence(waited_for, clock.now_ms())
        audience.on_change = self._on_change

    def _on_change(self, key: int | str) -> None:
        """A seat was taken or left. A host that connects is told the changes from then on."""
        if key == "host":
            here = "host" in self._audience.connected
            self.roster = Roster() if here else None
            self._admission.news = self._session.approval
            self.hostless_since = None if here else self._clock.now_ms()
        elif isinstance(key, int):
            self.note(key)
            if not self._is_waited_for(key):
                return
            if key in self._audience.connected:
                self._presence.came(key)
                self._session.back(key)
            else:
                self._presence.left(key, self._clock.now_ms())

    # -- the host ----------------------------------------------------------------------------------

    def note(self, player: int, *, joined: bool = False) -> None:
        """Tell the host about this player, as a new one if the player has `joined`."""
        if self.roster is not None:
            self.roster.note(player, joined=joined)

    def note_all(self) -> None:
        """Tell the host about every player, because it is unknown what the host was told by way of another
        node."""
        self.roster = Roster(self._session.players)

    def host_spoke(self, now: int) -> None:
        """A host that leads by requests alone is present too."""
        if self.hostless_since is not None:
            self.hostless_since = now

    @property
    def has_news(self) -> bool:
        """Whether there are changes to tell the host. Not after the end, because a host may leave after
        it."""
        news = self.roster is not None and (bool(self.roster) or self._admission.news)
        return news and self._session.phase is not Phase.FINISHED

    # -- players -----------------------------------------------------------------------------------

    def _is_waited_for(self, player: int) -> bool:
        return self._of_all or player in self._session.with_extra_time

    def extra_time_given(self, player: int) -> None:
        """From now on questions are held open for this player, for as long as the player is present."""
        if self._of_all:
            return
        if player in self._audience.connected:
            self._presence.came(player)
        else:
            self._presence.spoke(player)

    def spoke(self, player: int) -> None:
        """A player without a connection that plays by requests is present too."""
        if self._is_waited_for(player) and player not in self._audience.connected:
            self._presence.spoke(player)
            self._session.back(player)

    def expect(self, player: int) -> None:
        """Hold questions open for this player for a moment, as for a player that has just lost the
        connection."""
        if self._is_waited_for(player):
            self._presence.left(player, self._clock.now_ms())

    def question_opened(self) -> None:
        self._presence.opened()

    async def question_closed(self) -> None:
        """The next question is not held open for players that play by requests and did not answer this
        one."""
        slicer, silent = Slicer(), self._presence.silent()
        while silent:
            some = [silent.pop() for _ in range(min(AWAY_AT_ONCE_MAX, len(silent)))]
            self._session.away(some, self._clock.now_ms())
            await slicer.breathe()

    @property
    def gone_at(self) -> int | None:
        """When the open question may have to be closed, because a player that it is held open for is gone."""
        if self._session.phase is not Phase.QUESTION:
            return None
        return self._presence.due_at

    def miss_the_gone(self, now: int) -> None:
        """Stop holding the question open for some players that are gone by now."""
        self._session.away(self._presence.gone(now, AWAY_AT_ONCE_MAX), now)

    def wait_longer(self, by_ms: int) -> None:
        """For the players who are not here."""
        self._presence.put_off(by_ms)

    def give_back(self, by_ms: int) -> None:
        """The process stood still for so long: nobody could come back."""
        self.wait_longer(by_ms)
        if self.hostless_since is not None:
            self.hostless_since += by_ms
