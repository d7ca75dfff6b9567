"""Batches of facts in files of our own: what `append` returned from survives a crash of process and machine.

A spool is a directory of segments, files of the format in `records.py`.

After a write that failed nobody knows what of it is on the disk, and the kernel may have dropped the pages
while it calls them clean. So the segment is never written again: its synced records stay, the next `append`
begins another. The batch that failed may then be there twice; facts may be stored twice without harm.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.storage.spool.records import MAGIC, Record, SpoolDamaged, encoded, record_at, walk

_SUFFIX = ".spool"


class SpoolInUse(Exception):
    """Another process has the spool."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"the spool in {directory} is in use by another node: give each its own data directory"
        )


@dataclass(slots=True)
class _Segment:
    """`end` is how far it is synced; `last` the number of its last record, 0 while it has none."""

    path: Path
    end: int
    last: int = 0


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """A snapshot. `oldest_at` dates the oldest record, or the one before it; None when there is none."""

    facts: int
    bytes: int
    oldest_at: int | None


class Spool:
    """The spool of one node, which is its alone until `close`.

    `append` blocks until the disk has the record; `read` and `forget` may touch the disk as well: call them
    in a thread. One thread may append while another reads and forgets.

    Args:
        segment_bytes: beyond this a segment is not continued. What was forgotten leaves the disk by segments.
        write: as `os.write`; tests put a disk that is full or failing in its place.

    Raises:
        SpoolDamaged, SpoolInUse, OSError.
    """

    def __init__(
        self, directory: Path, *, segment_bytes: int = 16 << 20, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        self.directory = directory
        self._segment_bytes = segment_bytes
        self._write = write
        self._counting = threading.Lock()
        self._ordinal = self._number = self._facts = self._bytes = 0
        self._oldest_at: int | None = None
        self._kept: deque[_Segment] = deque()
        # The writer's: the segment it writes, which joins the others with its first record.
        self._current: _Segment | None = None
        self._writing = -1
        # The reader's: what it has not read to the end, and how far it is in the first of it.
        self._unread: deque[_Segment] = deque()
        self._reading = -1
        self._position = 0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sync_directory(directory.parent)
        self._lock = _locked(directory)
        try:
            self._scan()
        except BaseException:
            os.close(self._lock)
            raise

    def _scan(self) -> None:
        paths = segments(self.directory)
        for path, record in walk(paths):
            if not self._kept or self._kept[-1].path != path:
                self._kept.append(_Segment(path, len(MAGIC)))
            self._kept[-1].end += record.size
            self._kept[-1].last = self._number = record.number
            self._facts += record.facts
            self._bytes += record.size
            if self._oldest_at is None:
                self._oldest_at = record.at
        for path in set(paths) - {segment.path for segment in self._kept}:
            path.unlink()
        self._unread.extend(self._kept)
        if paths:
            self._ordinal = int(paths[-1].stem)

    @property
    def number(self) -> int:
        """Of the newest record; 0 before the first."""
        return self._number

    def statistics(self) -> SpoolStatistics:
        with self._counting:
            return SpoolStatistics(self._facts, self._bytes, self._oldest_at if self._facts else None)

    # -- the writer ------------------------------------------------------------------------------

    def append(self, payload: bytes, facts: int, at: int) -> None:
        """Returns once the record is on the disk. Raises OSError when it is not; it may be tried again."""
        record = Record(self._number + 1, facts, at, payload)
        try:
            segment = self._current
            if segment is None or segment.end >= self._segment_bytes:
                segment = self._begin()
            self._write_all(encoded(record))
        except OSError:
            self._abandon()
            raise
        with self._counting:
            if not segment.last:
                self._kept.append(segment)
                self._unread.append(segment)
            segment.end += record.size
            segment.last = self._number = record.number
            if not self._facts:
                self._oldest_at = at
            self._facts += facts
            self._bytes += record.size

    def probe(self) -> None:
        """Raises OSError if the disk takes no segment. Leaves nothing; the next `append` begins another."""
        try:
            self._begin()
        finally:
            self._abandon()

    def _begin(self) -> _Segment:
        self._end_current()
        self._ordinal += 1
        path = self.directory / f"{self._ordinal:08}{_SUFFIX}"
        # O_DSYNC: one call writes and syncs, and waits for the interpreter's lock once.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC
        self._writing = os.open(path, flags, 0o600)
        self._current = _Segment(path, len(MAGIC))
        self._write_all(MAGIC)
        _sync_directory(self.directory)
        return self._current

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[self._write(self._writing, data) :]

    def _end_current(self) -> None:
        self._current = None
        if self._writing >= 0:
            with suppress(OSError):  # what it holds was synced by each write
                os.close(self._writing)
            self._writing = -1

    def _abandon(self) -> None:
        """Never write to this segment again, and give the room of what was not synced back."""
        segment = self._current
        self._end_current()
        if segment is not None:
            with suppress(OSError):
                if segment.last:
                    os.truncate(segment.path, segment.end)
                else:
                    segment.path.unlink()

    # -- the reader ------------------------------------------------------------------------------

    def read(self, facts_max: int) -> Sequence[Record]:
        """The oldest records that were not read yet: as many as have `facts_max` facts together, but one at
        least. Nothing when all were read. Raises OSError, and SpoolDamaged if the disk has changed them."""
        found: list[Record] = []
        facts = 0
        while True:
            try:
                record = self._peek()
            except OSError:
                if found:  # these were read; the next call meets the trouble again
                    return found
                raise
            if record is None or (found and facts + record.facts > facts_max):
                return found
            found.append(record)
            facts += record.facts
            self._position += record.size

    def _peek(self) -> Record | None:
        while self._unread:
            segment = self._unread[0]
            self._position = self._position or len(MAGIC)
            if self._position < segment.end:
                if self._reading < 0:
                    self._reading = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
                record = record_at(self._reading, self._position)
                if isinstance(record, Record):
                    return record
                raise SpoolDamaged(segment.path, self._position, record or "it ends here", 0)
            if len(self._unread) == 1:
                return None
            self._unread.popleft()
            self._end_reading()
        return None

    def _end_reading(self) -> None:
        self._position = 0
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1

    def forget(self, records: Sequence[Record]) -> None:
        """These, the oldest that were read, are no longer needed. Their room is given back by and by."""
        with self._counting:
            for record in records:
                self._facts -= record.facts
                self._bytes -= record.size
                self._oldest_at = record.at
        with suppress(OSError):  # then at the next time: segments leave in their order, without a gap
            while len(self._kept) > 1 and self._kept[0].last <= records[-1].number:
                self._remove_oldest()

    def _remove_oldest(self) -> None:
        self._kept[0].path.unlink(missing_ok=True)
        _sync_directory(self.directory)
        self._kept.popleft()

    # -- neither of them at work -----------------------------------------------------------------

    def clear(self) -> None:
        """Give the room of everything back, when all is forgotten and nobody appends or reads."""
        assert not self._facts, "facts would be lost"
        self._end_current()
        self._end_reading()
        self._unread.clear()
        with suppress(OSError):
            while self._kept:
                self._remove_oldest()

    def close(self) -> None:
        """Let the directory go. What it holds stays."""
        self._end_current()
        self._end_reading()
        os.close(self._lock)


def segments(directory: Path) -> Sequence[Path]:
    """The files of a spool in their order."""
    return sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def cut(directory: Path, aside: Path) -> int:
    """Keep what can be read of a damaged spool, and move the segments from the damage on to `aside`; what is
    whole of the first of them is kept as well. Returns how many facts are left.

    Does nothing to a spool that is not damaged. Raises SpoolInUse and OSError.
    """
    lock = _locked(directory)
    try:
        paths = list(segments(directory))
        whole = 0
        try:
            for _, record in walk(paths):
                whole += record.facts
        except SpoolDamaged as damage:
            draft = damage.path.with_suffix(".cut")
            with draft.open("wb") as file:
                file.write(damage.path.read_bytes()[: damage.offset])
                file.flush()
                os.fsync(file.fileno())
            aside.mkdir(parents=True)
            for path in paths[paths.index(damage.path) :]:
                path.rename(aside / path.name)
            draft.rename(damage.path)
            _sync_directory(aside)
            _sync_directory(directory)
        return whole
    finally:
        os.close(lock)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(directory: Path) -> int:
    """Held until the process ends, however it does."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpoolInUse(directory) from None
    return lock
