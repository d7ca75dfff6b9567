"""The final standing as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.domain.facts import Fact, Finished, QuestionClosed, QuestionOpened
from engine.domain.quiz import Quiz
from engine.ports import PlayerResult, SessionRecord
from server.http.results import CsvRows
from tests.fakes import MemoryCatalog, MemorySessionStore
from tests.http.edge import OUTSIDE, QUIZ, Edge, Played, edge
from tests.settings import AT_ONCE
from tests.storage.making import AT, answered, joined, record_of


async def played(e: Edge) -> Played:
    session, ada, ben = await e.started("Ada", "Ben")
    await session.answer(ada, 0)
    await session.answer(ben, 1)
    return session


FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


async def opened(e: Edge, **settings: object) -> Played:
    quiz = await e.post("/api/quizzes", QUIZ, token="the-author-key")
    body = {"quiz_id": quiz.json["id"], **AT_ONCE, **settings}
    return Played(e, (await e.post("/api/sessions", body, token="the-author-key")).json)


async def test_results_are_for_host_and_author_until_the_end() -> None:
    async with edge(author_key="the-author-key") as e:
        session, other = await opened(e), await opened(e)
        ada = await session.join("Ada")
        for suffix in ("", ".json", ".csv"):
            url = f"{session.url}/results{suffix}"
            assert (await e.get(url)).error == "token_missing"
            assert (await e.get(url, token="forged")).error == "token_invalid"
            assert (await e.get(url, token=ada["token"])).error == "not_host"
            assert (await e.get(url, token=other.host_token)).error == "token_invalid"
            assert (await e.get(url, token=session.host_token)).status == 200
            assert (await e.get(url, token="the-author-key")).status == 200


@pytest.mark.parametrize(("reveal", "shown"), [("each", 1), ("end", 0), ("deadline", 0), ("never", 0)])
async def test_results_at_the_own_pace_show_what_players_may_know(reveal: str, shown: int) -> None:
    async with edge(author_key="the-author-key") as e:
        session = await opened(e, pace="self", board="live", reveal=reveal)
        ada = await session.join("Ada")
        await e.post(f"{session.url}/next", token=ada["token"])
        await session.answer(ada, 0)
        [line] = (await e.get(f"{session.url}/results", token=session.host_token)).json["players"]
        assert line["answered"] == shown
        await session.do("finish")
        [line] = (await e.get(f"{session.url}/results", token=session.host_token)).json["players"]
        assert line["answered"] == 1


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_session_that_is_over_is_for_those_who_were_there(
    mock_clock: MockClock, in_memory: bool
) -> None:
    async with edge(author_key="the-author-key") as e:
        session, other = [await opened(e) for _ in range(2)]
        ada, kicked, stranger = [await session.join("Ada"), await session.join("Ben"), await other.join("Cy")]
        await session.do("start")
        await session.answer(ada, 0)
        await session.do("kick", player=kicked["player_id"])
        await session.do("finish")
        if not in_memory:
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        spectator = e.tokens.issue(session.id, "spectator", None)
        doors = [f"{session.url}/{it}" for it in ("results", "results.json", "results.csv", "leaderboard")]
        for url in doors:
            for token in (session.host_token, ada["token"], spectator, "the-author-key"):
                shown = await e.get(url, token=token, peer=OUTSIDE)
                assert (shown.status, b"Ada" in shown.body) == (200, True)
            assert (await e.get(url, peer=OUTSIDE)).error == "token_missing"
            assert (await e.get(url, token=stranger["token"], peer=OUTSIDE)).error == "token_invalid"
            assert (await e.get(url, token=other.host_token, peer=OUTSIDE)).error == "token_invalid"
            assert (await e.get(url, token=kicked["token"], peer=OUTSIDE)).error == "kicked"
        assert (await e.get(f"{session.url}/results?token={ada['token']}", peer=OUTSIDE)).status == 200
        assert (await e.get(f"{session.url}/results?token=forged", peer=OUTSIDE)).error == "token_invalid"

        told = await e.get(session.url, peer=OUTSIDE)
        assert b"Ada" not in told.body
        state = told.json["state"]
        assert (state["phase"], state["title"], state["players"]) == ("finished", "Capitals", 1)
        assert (state["podium"], state["reveal"], state["leaderboard"]["top"]) == (None, None, [])
        for token in (session.host_token, ada["token"], spectator, "the-author-key"):
            state = (await e.get(session.url, token=token, peer=OUTSIDE)).json["state"]
            assert state["podium"][0]["name"] == state["leaderboard"]["top"][0]["name"] == "Ada"
        assert (await e.get(session.url, token=stranger["token"], peer=OUTSIDE)).error == "token_invalid"


@pytest.mark.parametrize("in_memory", [True, False])
async def test_results_public_opens_the_end_to_all(mock_clock: MockClock, in_memory: bool) -> None:
    async with edge(author_key="the-author-key") as e:
        session = await opened(e, results_public=True)
        await session.join("Ada")
        await session.do("start")
        assert (await e.get(f"{session.url}/results", peer=OUTSIDE)).error == "token_missing"
        await session.do("finish")
        if not in_memory:
            mock_clock.autojump_threshold = 0
            await session.leave_memory()
        for door in ("/results", "/results.csv", "/leaderboard", ""):
            assert b"Ada" in (await e.get(f"{session.url}{door}", peer=OUTSIDE)).body


async def test_results_say_whether_they_are_final() -> None:
    async with edge() as e:
        session = await played(e)
        assert (await e.get(f"{session.url}/results")).json["final"] is False
        await session.do("finish")
        assert (await e.get(f"{session.url}/results")).json["final"] is True


async def test_results_say_which_questions_count_for_nobody() -> None:
    async with edge() as e:
        session = await played(e)
        assert (await e.get(f"{session.url}/results")).json["skipped"] == []
        assert (await session.do("skip")).status == 200
        results = (await e.get(f"{session.url}/results")).json
        assert results["skipped"] == [1]
        assert {(each["score"], each["answered"]) for each in results["players"]} == {(0, 0)}


async def test_files_are_offered_for_download(mock_clock: MockClock) -> None:
    async with edge() as e:
        session = await played(e)
        await session.do("finish")
        shown = await e.get(f"{session.url}/results")
        as_json = await e.get(f"{session.url}/results.json")
        assert as_json.json == shown.json
        assert as_json.headers["Content-Disposition"] == f'attachment; filename="fanfare-{session.code}.json"'
        as_file = await e.get(f"{session.url}/results.csv")
        assert as_file.headers["Content-Type"].startswith("text/csv; charset=utf-8")
        assert as_file.body.decode("utf-8-sig") == (
            "rank,player,name,score,correct,answered,elapsed_ms\r\n1,1,Ada,1000,1,1,0\r\n2,2,Ben,0,0,1,0\r\n"
        )
        mock_clock.autojump_threshold = 0
        await session.leave_memory()
        assert (await e.get(f"{session.url}/results.csv")).body == as_file.body


def csv_text(name: str) -> str:
    rows = CsvRows(record_of("quiz"), (), bom=False)
    rows.take([PlayerResult(1, 1, name, 2, 3, 4, 5)])
    return b"".join(rows.parts()).decode()


def cells_of(name: str, separator: str) -> list[str]:
    """As a spreadsheet reads the line of a player that splits at this separator."""
    return list(csv.reader(io.StringIO(csv_text(name), newline=""), delimiter=separator))[1]


@pytest.mark.parametrize(
    "name",
    [
        *("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"),
        *('=HYPERLINK("http://x","y")', "x;=1+1", "x; =1+1", "x;;-1", "x,=1", "x\t@A1", "x|+1", "x;\uff1d1"),
        *('x";=1', 'x;"=1"', 'x;"+1";-1', "x;'=1", '"=1', "'=1", ';=cmd|"/c calc"!A1', "a;b;c;=d"),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_no_name_becomes_a_formula_whatever_a_spreadsheet_splits_at(name: str, separator: str) -> None:
    for cell in cells_of(name, separator):
        assert not cell.lstrip(" \"'").startswith(FORMULA_SIGNS) or cell.lstrip(' "').startswith("'"), cell


@pytest.mark.parametrize(
    "name", ["Ada", 'a "quoted", name', "two\nlines", "Zoë 🎺", "a=b", "Jean-Luc", "C++", "Ada :-)", "a @ b"]
)
def test_any_other_name_comes_back_as_it_was(name: str) -> None:
    assert cells_of(name, ",") == ["1", "1", name, "2", "3", "4", "5"]


async def test_the_file_says_that_it_is_unicode_unless_told_not_to() -> None:
    async with edge() as e:
        session = await played(e)
        url = f"{session.url}/results.csv"
        marked, plain, refused = [
            await e.get(f"{url}{query}", token=session.host_token) for query in ("", "?bom=false", "?bom=1")
        ]
        assert marked.body == b"\xef\xbb\xbf" + plain.body
        assert plain.body.startswith(b"rank,player,")
        assert (refused.error, refused.path) == ("bad_field", "bom")
        assert (
            await e.get(f"{session.url}/results?bom=true", token=session.host_token)
        ).error == "unknown_field"


async def test_results_of_a_database_that_is_away() -> None:
    async with edge() as e:
        session = await played(e)
        await session.do("finish")
        e.store.available = False
        away = await e.get(f"{session.url}/results")
        assert (away.status, away.error) == (503, "busy")


# Large sessions that are over


PLAYERS = 1_100


class Counting(MemorySessionStore):
    """Counts what is asked for, and how much of it at one time."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        super().__init__(catalog)
        self.asked: list[tuple[str, int]] = []
        self.slices: list[int] = []
        self.at_once = self.at_once_most = 0
        self.answering = trio.Event()
        self.answering.set()

    @asynccontextmanager
    async def asking(self, what: str, rows: int) -> AsyncIterator[None]:
        self.asked.append((what, rows))
        self.at_once += 1
        self.at_once_most = max(self.at_once, self.at_once_most)
        try:
            await self.answering.wait()
            yield
        finally:
            self.at_once -= 1

    async def results(
        self,
        session_id: str,
        take: Callable[[Sequence[PlayerResult]], None],
        up_to: int | None = None,
    ) -> None:
        def counted(results: Sequence[PlayerResult]) -> None:
            self.slices.append(len(results))
            take(results)

        async with self.asking("all", 0):
            await super().results(session_id, counted, up_to)

    async def first_results(self, session_id: str, count: int) -> tuple[Sequence[PlayerResult], int]:
        async with self.asking("first", count):
            return await super().first_results(session_id, count)

    async def results_around(self, session_id: str, player: int, reach: int) -> Sequence[PlayerResult]:
        async with self.asking("around", 2 * reach + 1):
            return await super().results_around(session_id, player, reach)

    async def results_by_player(
        self, session_id: str, after: int, limit: int
    ) -> tuple[Sequence[PlayerResult], int]:
        async with self.asking("page", limit):
            return await super().results_by_player(session_id, after, limit)


@asynccontextmanager
async def over() -> AsyncIterator[tuple[Edge, Counting, SessionRecord]]:
    """A large session that is over and was never in memory here."""
    async with edge(Counting, author_key="the-author-key") as e:
        store = e.store
        assert isinstance(store, Counting)
        record = record_of((await e.catalog.add(Quiz.parse(QUIZ))).id)
        await store.create(record)
        claimed = await store.claim(record.id, "another node")
        facts: list[Fact] = [joined(seq) for seq in range(1, PLAYERS + 1)]
        facts += [QuestionOpened(PLAYERS + 1, AT, 1)]
        facts += [answered(PLAYERS + 1 + n, n, points=n) for n in range(1, PLAYERS + 1)]
        facts += [QuestionClosed(2 * PLAYERS + 2, AT, 1), Finished(2 * PLAYERS + 3, AT)]
        assert store.write(record.id, claimed.epoch, facts)
        yield e, store, record


async def test_a_line_of_a_large_standing_costs_a_line(mock_clock: MockClock) -> None:
    async with over() as (e, store, record):
        url = f"/api/sessions/{record.code}"
        board = (await e.get(f"{url}/leaderboard?top=10", token="the-author-key")).json
        assert [(line["rank"], line["id"]) for line in board["top"]] == [
            (n, PLAYERS + 1 - n) for n in range(1, 11)
        ]
        assert board["players"] == PLAYERS
        assert (await e.get(url, token="the-author-key")).json["state"]["leaderboard"]["top"] == board["top"]
        assert store.asked == [("first", 10)], "the second was told the same"
        page = (await e.get(f"{url}/players?after=17&limit=5", token="the-author-key")).json
        assert [each["id"] for each in page["players"]] == [18, 19, 20, 21, 22]
        assert (page["next"], page["total"]) == (22, PLAYERS)
        token = e.tokens.issue(record.id, "player", 1)
        near = (await e.get(f"{url}/leaderboard?top=1&around=me", token=token)).json
        assert [line["id"] for line in near["around"]] == [3, 2, 1]
        assert store.asked[1:] == [("page", 6), ("around", 5)]
        assert len((await e.get(f"{url}/leaderboard?top=1000", token=token)).json["top"]) == 1000
        assert store.asked[3:] == [("first", 1000)]


async def test_large_results_are_made_slice_by_slice() -> None:
    async with over() as (e, store, record):
        url = f"/api/sessions/{record.code}/results"
        found = (await e.get(f"{url}.json", token="the-author-key")).json
        assert [each["player"] for each in found["players"]] == list(range(PLAYERS, 0, -1))
        as_file = (await e.get(f"{url}.csv", token="the-author-key")).body.decode("utf-8-sig")
        assert list(csv.DictReader(io.StringIO(as_file, newline=""))) == [
            {name: str(value) for name, value in each.items()} for each in found["players"]
        ]
        assert store.slices == 2 * [250, 250, 250, 250, 100]


async def test_a_crowd_that_comes_to_see_the_end_asks_once(mock_clock: MockClock) -> None:
    async with over() as (e, store, record):
        store.answering = trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(e.get, f"/api/sessions/{record.code}")
            await wait_all_tasks_blocked()
            store.answering.set()
        assert store.asked == [("first", 10)]


async def test_few_standings_are_made_at_a_time_and_who_waits_in_vain_is_told(autojump_clock: object) -> None:
    async with over() as (e, store, record):
        store.answering = trio.Event()
        url, replies = f"/api/sessions/{record.code}", []

        async def ask(path: str) -> None:
            replies.append(await e.get(url + path, token="the-author-key"))

        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(ask, f"/leaderboard?top={20 + n}")
            for kind in ("json", "csv"):
                nursery.start_soon(ask, f"/results.{kind}")
        assert {(reply.status, reply.error) for reply in replies} == {(503, "busy")}
        assert store.at_once_most == 2
        store.answering.set()
        assert (await e.get(f"{url}/results.csv", token="the-author-key")).status == 200


async def test_large_results_are_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with over() as (e, store, record):
        made, gate = 0, trio.Event()

        async def results(*_: object) -> None:
            nonlocal made
            made += 1
            await gate.wait()

        monkeypatch.setattr(store, "results", results)
        replies: list[int] = []

        async def ask(kind: str) -> None:
            url = f"/api/sessions/{record.code}/results.{kind}"
            replies.append((await e.get(url, token="the-author-key")).status)

        async with trio.open_nursery() as nursery:
            for kind in ("json", "csv", "json"):
                nursery.start_soon(ask, kind)
            await wait_all_tasks_blocked()
            assert made == 1
            gate.set()
        assert (made, replies) == (3, [200] * 3)


async def test_a_large_result_may_take_its_time_and_who_waits_behind_it_is_told(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with over() as (e, store, record):
        replies: list[tuple[int, float]] = []
        began = trio.current_time()

        async def results(*_: object) -> None:
            await trio.sleep(40 if not replies else 0)

        monkeypatch.setattr(store, "results", results)

        async def ask() -> None:
            answer = await e.get(f"/api/sessions/{record.code}/results.csv", token="the-author-key")
            replies.append((answer.status, trio.current_time() - began))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ask)
        assert [(status, round(at)) for status, at in replies] == [(503, 15), (200, 40)]
        await ask()
        assert replies[-1][0] == 200


async def test_large_results_in_memory_are_bounded(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Callable[[], object]] = []
    monkeypatch.setattr("server.http.results.when_over", released.append)  # nobody has got the end of any
    async with over() as (e, _, record):
        url = f"/api/sessions/{record.code}/results.csv"
        for _ in range(4):
            assert (await e.get(url, token="the-author-key")).status == 200
        assert (await e.get(url, token="the-author-key")).error == "busy"
        released[0]()
        assert (await e.get(url, token="the-author-key")).status == 200
