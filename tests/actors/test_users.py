"""Users of the app: each has one seat in a session, whatever device or node the user comes by."""

from __future__ import annotations

from trio.testing import MockClock

from engine.actors.actor import SessionActor
from engine.actors.close_reasons import CloseReason
from engine.actors.commands import Answer, Erase, Identity, Join, Look, Merge, Rejoin
from engine.actors.live_session import JOINS_FOLLOW_MS
from engine.domain.facts import AnswerAccepted, PlayerJoined
from tests.actors.world import Client, World, settle, world

ADA = Identity("ada@app", "Ada")


async def came(w: World, actor: SessionActor, identity: Identity | None, **where: object) -> Client:
    client = Client()
    actor.send(Join(client, None, w.clock.now_ms(), identity=identity, **where))  # type: ignore[arg-type]  # passed on
    await settle()
    return client


def seats(w: World, actor: SessionActor) -> list[tuple[int, str, str | None]]:
    """Number, name and user of the players, as they are stored."""
    facts = w.store.facts(actor.record.id)
    return [(fact.player, fact.name, fact.user_id) for fact in facts if isinstance(fact, PlayerJoined)]


async def test_a_second_device_is_the_same_player_and_the_newer_connection_wins() -> None:
    async with world() as w:
        actor = await w.session()
        phone = await came(w, actor, ADA)
        await w.do(actor, "start")
        w.answer(actor, phone, 1)
        await settle()
        tablet = await came(w, actor, Identity("ada@app", "Ada Lovelace"))
        joined = tablet.last("joined")
        assert (joined["player"], joined["name"]) == (1, "Ada")
        assert joined["state"]["you"]["answered"]["choice"] == 0
        assert phone.close_reason is CloseReason.REPLACED
        by_request = await came(w, actor, ADA, attach=False)
        assert by_request.kinds == ["joined"]
        assert by_request.last("joined")["player"] == 1
        assert tablet.close_reason is None, "a request takes no seat away"
        assert seats(w, actor) == [(1, "Ada", "ada@app")]


async def test_a_user_resumes_at_an_offset() -> None:
    async with world() as w:
        actor = await w.session()
        first = await came(w, actor, ADA)
        await w.do(actor, "start")
        position = {"epoch": first.last("joined")["epoch"], "offset": first.last("joined")["offset"]}
        again = await came(w, actor, ADA, **position)
        assert again.last("joined")["state"] is None
        assert again.got("question"), "what was missed follows"


async def test_a_user_whose_join_is_still_in_an_earlier_owners_spool_keeps_the_seat(
    mock_clock: MockClock,
) -> None:
    async with world() as w:
        first = await w.session()
        await came(w, first, Identity("ben@app", "Ben"))
        actor = await w.another("next").get(first.session_id)
        position = {"epoch": first.epoch, "offset": 0}
        assert (await came(w, actor, ADA, **position)).errors == ["busy"]
        assert (await came(w, actor, Identity("cem@app", "Cem"))).last("joined")["player"] == 2, "who is new"
        actor.send(Merge(Client(), [PlayerJoined(1, w.clock.now_ms(), 2, "Ada", user_id="ada@app")]))
        await settle()
        assert (await came(w, actor, ADA, **position)).last("joined")["name"] == "Ada"
        assert [user for _, _, user in seats(w, actor)] == ["ben@app", "cem@app", "ada@app"]
        mock_clock.jump(JOINS_FOLLOW_MS / 1000)
        assert (await came(w, actor, Identity("dan@app", "Dan"), **position)).kinds == ["joined"]


async def test_two_joins_at_once_are_one_player_and_nobody_hears_of_a_seat_that_is_not_stored() -> None:
    async with world() as w:
        actor = await w.session()
        w.journal.auto = "off"
        one, other, third = Client(), Client(), Client()
        for client, attach in ((one, True), (other, True), (third, False)):
            actor.send(Join(client, None, w.clock.now_ms(), attach=attach, identity=ADA))
        await settle()
        assert not one.frames + other.frames + third.frames
        w.journal.commit()
        await settle()
        assert [client.last("joined")["player"] for client in (one, other, third)] == [1, 1, 1]
        assert one.close_reason is CloseReason.REPLACED
        assert other.close_reason is None
        assert seats(w, actor) == [(1, "Ada", "ada@app")]


async def test_a_user_answers_looks_and_comes_back_without_a_token() -> None:
    async with world() as w:
        actor = await w.session()
        await came(w, actor, Identity("ben@app", "Ben"))
        await came(w, actor, ADA)
        await w.do(actor, "start")
        client = Client()
        actor.send(Answer(client, 0, "x", 1, 0, w.clock.now_ms(), user="ada@app"))
        actor.send(Look(client, top=1, user="ada@app"))
        actor.send(Rejoin(client, "player", user="ada@app"))
        await settle()
        assert client.last("ack")["status"] == "accepted"
        assert any(line["id"] == 2 for line in client.last("board")["around"])
        assert client.last("joined")["player"] == 2
        assert [
            fact.player for fact in w.store.facts(actor.record.id) if isinstance(fact, AnswerAccepted)
        ] == [2]


async def test_a_user_who_has_no_seat_is_not_somebody_else() -> None:
    async with world() as w:
        actor = await w.session()
        await came(w, actor, ADA)
        await w.do(actor, "start")
        client = Client()
        actor.send(Answer(client, 1, "x", 1, 0, w.clock.now_ms(), user="ben@app"))
        actor.send(Look(client, player=1, top=1, user="ben@app"))
        actor.send(Rejoin(client, "player", 1, user="ben@app"))
        await settle()
        assert client.errors == ["player_not_found"] * 3
        assert not [fact for fact in w.store.facts(actor.record.id) if isinstance(fact, AnswerAccepted)]


async def test_nobody_comes_back_to_a_seat_that_is_not_stored_yet() -> None:
    async with world() as w:
        actor = await w.session()
        w.journal.auto = "off"
        phone, stream = Client(), Client()
        actor.send(Join(phone, None, w.clock.now_ms(), attach=False, identity=ADA))
        actor.send(Rejoin(stream, "player", user="ada@app"))
        await settle()
        assert not phone.frames + stream.frames
        w.journal.commit()
        await settle()
        assert phone.last("joined")["player"] == stream.last("joined")["player"] == 1


async def test_a_removed_user_stays_removed_and_an_erased_user_gets_no_other_seat() -> None:
    async with world() as w:
        actor = await w.session()
        await came(w, actor, ADA)
        await w.do(actor, "kick", player=1)
        assert (await came(w, actor, ADA)).errors == ["kicked"]
        await w.do(actor, "readmit", player=1)
        assert (await came(w, actor, ADA)).last("joined")["player"] == 1
        actor.send(Erase(Client(), 1))
        await settle()
        assert (await came(w, actor, ADA)).errors == ["player_not_found"]
        assert (await came(w, actor, Identity("ben@app", "Ada"))).last("joined")["player"] == 2


async def test_what_the_app_says_a_user_is_called_is_never_refused() -> None:
    async with world() as w:
        actor = await w.session()
        await w.join(actor, "Ada")
        for user_id, name in (
            ("1", "Ada"),
            ("2", "ÀDA"),
            ("3", "host"),
            ("4", "#7"),
            ("5", "M" * 300),
            ("6", "M" * 300),
        ):
            assert (await came(w, actor, Identity(user_id, name))).kinds == ["joined"]
        assert [name for _, name, _ in seats(w, actor)] == [
            *("Ada", "Ada 2", "ÀDA 3", "host", "Swift Bear"),
            "M" * 32,
            "M" * 30 + " 2",
        ]
        assert (await came(w, actor, Identity("7"))).errors == ["missing_field"], (
            "the app leaves it to the player"
        )
        named = Client()
        actor.send(Join(named, "Ada", w.clock.now_ms(), identity=Identity("7")))
        await settle()
        assert named.errors == ["name_taken"]


async def test_a_session_may_demand_an_identity_of_its_players() -> None:
    async with world() as w:
        actor = await w.session(identity="required")
        assert (await w.join(actor, "Ada")).errors == ["identity_required"]
        assert (await came(w, actor, ADA)).last("joined")["player"] == 1
        assert (await w.watch(actor)).kinds == ["joined"], "the big screen is no player"


async def test_a_user_comes_back_to_a_session_that_is_full_locked_or_over() -> None:
    async with world() as w:
        actor = await w.session(player_limit=1)
        await came(w, actor, ADA)
        await w.do(actor, "lock", on=True)
        assert (await came(w, actor, ADA)).last("joined")["player"] == 1
        assert (await came(w, actor, Identity("ben@app", "Ben"))).errors == ["session_locked"]
        for do in ("lock", "start", "finish"):
            await w.do(actor, do, on=False if do == "lock" else None)
        assert (await came(w, actor, ADA)).last("joined")["state"]["phase"] == "finished"
        assert (await came(w, actor, Identity("ben@app", "Ben"))).errors == ["session_finished"]


async def test_the_seat_of_a_user_outlives_the_node() -> None:
    async with world() as w:
        actor = await w.session()
        client = await came(w, actor, ADA)
        await w.do(actor, "start")
        actor.send(Answer(client, 1, "a", 1, 0, w.clock.now_ms()))
        await settle()
        w.start("next")
        actor = await w.registry.revive(await w.store.find(actor.record.id))
        back = await came(w, actor, ADA)
        assert back.last("joined")["player"] == 1
        assert back.last("joined")["state"]["you"]["answered"]["choice"] == 0
