"""What was appended is read back whole, or not at all: torn ends, flipped bits, full disks, kills."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.storage.spool.records import HEAD, MAGIC, SpoolDamaged
from engine.storage.spool.segments import Spool, SpoolInUse, cut, segments
from tests.storage.world import Disk

_ROOT = Path(__file__).parents[2]
PAYLOADS = [b"first", b"", b"third " * 20, b"\0" * 40, b"fifth"]


def filled(directory: Path, payloads: list[bytes] = PAYLOADS, **options: int) -> None:
    spool = Spool(directory, **options)
    for number, payload in enumerate(payloads, start=1):
        spool.append(payload, number, 1000 + number)
    spool.close()


def read_all(directory: Path) -> list[bytes]:
    spool = Spool(directory)
    try:
        return [record.payload for record in spool.read(1_000_000)]
    finally:
        spool.close()


# Appending, reading, forgetting


def test_records_come_back_in_order_with_all_that_is_said_of_them(tmp_path: Path) -> None:
    filled(tmp_path)
    spool = Spool(tmp_path)
    records = spool.read(1_000_000)
    assert [(r.number, r.facts, r.at, r.payload) for r in records] == [
        (n, n, 1000 + n, payload) for n, payload in enumerate(PAYLOADS, start=1)
    ]
    statistics = spool.statistics()
    assert (statistics.facts, statistics.oldest_at) == (15, 1001)
    assert statistics.bytes == sum(HEAD.size + len(payload) for payload in PAYLOADS)
    assert spool.read(1) == []


@pytest.mark.parametrize("segment_bytes", [1, 100, 1 << 20])
def test_what_was_read_and_forgotten_leaves_the_disk(tmp_path: Path, segment_bytes: int) -> None:
    spool = Spool(tmp_path, segment_bytes=segment_bytes)
    for turn in range(3):
        for payload in PAYLOADS:
            spool.append(payload, 2, turn)
        read = []
        while records := spool.read(4):
            assert len(records) <= 2
            read += [record.payload for record in records]
            spool.forget(records)
        assert read == PAYLOADS
        assert (spool.statistics().facts, spool.statistics().bytes) == (0, 0)
        assert len(segments(tmp_path)) <= 1
    spool.clear()
    assert segments(tmp_path) == []
    spool.append(b"later", 1, 9)
    assert [record.number for record in spool.read(1)] == [16]


def test_what_was_read_but_not_forgotten_is_there_at_the_next_opening(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=1)
    for payload in PAYLOADS:
        spool.append(payload, 1, 0)
    spool.forget(spool.read(2))
    spool.read(2)
    spool.close()
    assert read_all(tmp_path) == PAYLOADS[2:]


def test_a_record_with_more_facts_than_were_asked_for_is_read_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for facts in (9, 1, 1):
        spool.append(b"x", facts, 0)
    assert [[record.facts for record in spool.read(3)] for _ in range(3)] == [[9], [1, 1], []]


def test_one_thread_appends_while_another_reads(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300)

    def append() -> None:
        for number in range(1, 301):
            spool.append(b"%d" % number, 1, 0)

    appending = threading.Thread(target=append)
    appending.start()
    read: list[bytes] = []
    while len(read) < 300:
        if records := spool.read(7):
            read += [record.payload for record in records]
            spool.forget(records)
    appending.join()
    assert read == [b"%d" % number for number in range(1, 301)]
    assert spool.statistics().facts == 0


def test_a_spool_has_one_node(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolInUse, match=str(tmp_path)):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


# Torn ends and damage


def test_a_tail_that_was_not_synced_is_passed_over_wherever_it_was_torn(tmp_path: Path) -> None:
    filled(tmp_path / "whole")
    [path] = segments(tmp_path / "whole")
    whole = path.read_bytes()
    ends = [len(MAGIC)]
    for payload in PAYLOADS:
        ends.append(ends[-1] + HEAD.size + len(payload))
    for size in range(len(whole) + 1):
        torn = tmp_path / "torn"
        torn.mkdir()
        (torn / path.name).write_bytes(whole[:size])
        assert read_all(torn) == PAYLOADS[: sum(end <= size for end in ends[1:])], size
        # What is appended after that is found behind it.
        spool = Spool(torn)
        spool.append(b"next", 1, 0)
        spool.close()
        assert read_all(torn)[-1] == b"next"
        shutil.rmtree(torn)


def test_a_tail_of_zeros_is_one_that_was_not_synced(tmp_path: Path) -> None:
    filled(tmp_path)
    [path] = segments(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    assert read_all(tmp_path) == PAYLOADS


def test_a_flipped_bit_anywhere_is_found_and_nothing_is_given_out(tmp_path: Path) -> None:
    filled(tmp_path, segment_bytes=100)
    paths = segments(tmp_path)
    assert len(paths) > 1
    flips = 0
    for path in paths:
        whole = path.read_bytes()
        for position in range(len(whole)):
            bit = 1 << (position + flips) % 8
            path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            with pytest.raises(SpoolDamaged) as caught:
                Spool(tmp_path)
            assert caught.value.path == path
            flips += 1
        path.write_bytes(whole)
    assert flips == sum(path.stat().st_size for path in paths)
    assert read_all(tmp_path) == PAYLOADS


@pytest.mark.parametrize("cut", [1, 40, HEAD.size + 41])
def test_a_segment_that_lost_its_end_though_another_follows_is_damage(tmp_path: Path, cut: int) -> None:
    filled(tmp_path, segment_bytes=100)
    path = segments(tmp_path)[0]
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(SpoolDamaged, match="follows record"):
        Spool(tmp_path)


def test_a_segment_that_is_missing_is_damage(tmp_path: Path) -> None:
    filled(tmp_path, [b"x" * 100] * 4, segment_bytes=100)
    segments(tmp_path)[1].unlink()
    with pytest.raises(SpoolDamaged, match="record 3 follows record 1"):
        Spool(tmp_path)


def test_damage_says_how_much_before_it_is_whole(tmp_path: Path) -> None:
    filled(tmp_path)
    [path] = segments(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(SpoolDamaged, match=r"record 5 does not check; 10 facts before it are whole"):
        Spool(tmp_path)
    path.write_bytes(whole)
    assert len(read_all(tmp_path)) == 5


@pytest.mark.parametrize("place", range(5))
def test_a_cut_keeps_what_lies_before_the_damage_and_loses_nothing_of_the_rest(
    tmp_path: Path, place: int
) -> None:
    directory, aside = tmp_path / "spool", tmp_path / "aside"
    payloads = [b"%d" % n * 60 for n in range(5)]
    filled(directory, payloads, segment_bytes=200)
    before = {path.name: path.read_bytes() for path in segments(directory)}
    at = next(path for path in segments(directory) if payloads[place] in path.read_bytes())
    damaged = at.read_bytes().replace(payloads[place], payloads[place][:-1] + b"?")
    at.write_bytes(damaged)
    assert cut(directory, aside) == sum(range(1, place + 1))
    assert read_all(directory) == payloads[:place]
    assert {path.name: path.read_bytes() for path in segments(aside)} == {
        name: damaged if name == at.name else content for name, content in before.items() if name >= at.name
    }
    spool = Spool(directory)
    spool.append(b"goes on", 1, 0)
    spool.close()
    assert read_all(directory) == [*payloads[:place], b"goes on"]


def test_a_spool_that_is_whole_is_not_cut(tmp_path: Path) -> None:
    filled(tmp_path / "spool")
    assert cut(tmp_path / "spool", tmp_path / "aside") == 15
    assert not (tmp_path / "aside").exists()
    assert read_all(tmp_path / "spool") == PAYLOADS


def test_a_spool_in_use_is_not_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with pytest.raises(SpoolInUse):
        cut(tmp_path / "spool", tmp_path / "aside")
    spool.close()


def test_sqlite_takes_damage_in_its_log_for_the_end_of_it(tmp_path: Path) -> None:
    """Why the spool is none of SQLite's: what it had committed after the damage is gone without a word."""
    connection = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE batches (payload BLOB)")
    for _ in range(50):
        connection.execute("INSERT INTO batches VALUES (?)", (b"x" * 3000,))
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "spool.db", copy)
    log = bytearray((tmp_path / "spool.db-wal").read_bytes())
    log[len(log) // 2] ^= 1
    copy.with_name("copy.db-wal").write_bytes(log)
    connection.close()
    damaged = sqlite3.connect(copy)
    assert damaged.execute("SELECT count(*) FROM batches").fetchone()[0] < 30
    assert damaged.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    damaged.close()


# Disks that are full or fail


def test_a_full_disk_costs_nothing_that_was_appended_and_heals(tmp_path: Path) -> None:
    disk = Disk()
    spool = Spool(tmp_path, write=disk.write)
    spool.append(b"before", 1, 0)
    for room in range(70):
        disk.room = room
        with pytest.raises(OSError, match="No space"):
            spool.append(b"while it is full, for longer than there is room", 1, 0)
    assert spool.statistics().facts == 1
    disk.room = None
    spool.append(b"after", 1, 0)
    assert [record.payload for record in spool.read(9)] == [b"before", b"after"]
    spool.close()
    assert read_all(tmp_path) == [b"before", b"after"]


def test_a_probe_tells_of_a_full_disk_and_leaves_nothing(tmp_path: Path) -> None:
    disk = Disk()
    spool = Spool(tmp_path, write=disk.write)
    spool.append(b"before", 1, 0)
    there = segments(tmp_path)
    disk.room = 0
    with pytest.raises(OSError, match="No space"):
        spool.probe()
    disk.room = None
    spool.probe()
    assert segments(tmp_path) == there
    spool.append(b"after", 1, 0)
    assert [record.payload for record in spool.read(9)] == [b"before", b"after"]
    spool.close()


def test_after_a_failed_sync_the_segment_is_never_written_again(tmp_path: Path) -> None:
    disk = Disk()
    spool = Spool(tmp_path, write=disk.write)
    spool.append(b"one", 1, 0)
    [trusted] = segments(tmp_path)
    size = trusted.stat().st_size
    disk.fails = True
    with pytest.raises(OSError, match="Input/output"):
        spool.append(b"two", 1, 0)
    with pytest.raises(OSError, match="Input/output"):
        spool.append(b"two", 1, 0)
    disk.fails = False
    spool.append(b"two", 1, 0)
    assert trusted.stat().st_size == size
    assert [path == trusted for path in segments(tmp_path)] == [True, False]
    assert [record.payload for record in spool.read(9)] == [b"one", b"two"]


def test_a_record_that_got_to_the_disk_though_its_sync_failed_may_be_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    spool = Spool(tmp_path, write=disk.write)
    spool.append(b"one", 1, 0)
    disk.fails = True
    monkeypatch.setattr(os, "truncate", lambda path, size: None)
    with pytest.raises(OSError, match="Input/output"):
        spool.append(b"two", 1, 0)
    disk.fails = False
    spool.append(b"two and three", 2, 0)
    spool.append(b"four", 1, 0)
    spool.close()
    assert read_all(tmp_path) == [b"one", b"two", b"two and three", b"four"]


def test_an_error_while_reading_passes_over_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, segment_bytes=1)
    spool = Spool(tmp_path)
    opens, tries = os.open, 0

    def one_in_three(path: Path, flags: int, mode: int = 0o777) -> int:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return opens(path, flags, mode)

    monkeypatch.setattr(os, "open", one_in_three)
    read: list[bytes] = []
    errors = 0
    for _ in range(50):
        try:
            read += [record.payload for record in spool.read(1_000)]
        except OSError:
            errors += 1
    assert read == PAYLOADS
    assert errors


def test_segments_that_cannot_be_removed_leave_later_and_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, segment_bytes=1)
    for number in range(4):
        spool.append(b"%d" % number, 1, 0)

    def fails(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        spool.forget(spool.read(2))
    assert len(segments(tmp_path)) == 4
    spool.forget(spool.read(1))
    assert len(segments(tmp_path)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        spool.forget(spool.read(1))
        spool.clear()
    spool.append(b"next", 1, 0)
    spool.close()
    assert read_all(tmp_path) == [b"3", b"next"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_file_system_that_is_really_full(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool", segment_bytes=50_000)
    appended: list[bytes] = []

    def fill() -> None:
        while True:
            payload = random.randbytes(3000)
            spool.append(payload, 1, 0)
            appended.append(payload)

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    half = spool.read(len(appended) // 2)
    spool.forget(half)
    spool.append(b"there is room again", 1, 0)
    expected = [*appended[len(half) :], b"there is room again"]
    assert [record.payload for record in spool.read(1000)] == expected
    spool.close()
    assert read_all(small_disk / "spool")[-len(expected) :] == expected


# Kills


def test_what_a_killed_process_had_appended_is_there(tmp_path: Path) -> None:
    rng = random.Random(20)
    for turn in range(6):
        directory = tmp_path / str(turn)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.storage.spool_to_kill", str(directory)],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 150)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
        last = int(said[-1]) if said else 0
        back = read_all(directory)
        assert len(back) >= last
        assert back == [b"%d " % n * (n % 700) for n in range(1, len(back) + 1)]
