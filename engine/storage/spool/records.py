"""The format of a spool: records in segments, and which of what is read back may be believed.

A segment begins with a fixed line; records follow, each a head and a payload with a checksum each. Records
are numbered throughout. A record is written only after the record before it is synced, so what a crash can
tear is the last record, which no client was told of.

What is read back is what was written, or nothing at all:

- A record that ends early, or zeros to the end of the segment, is a tail that was never synced: passed over.
- Everything else that does not check is damage (a flipped bit, a segment that is missing). `SpoolDamaged`
  names the place, and no record is given out.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MAGIC = b"fanfare spool 1\n"
HEAD = struct.Struct("<IIQIQI")
"""Bytes of the payload, checksum of the payload, number, facts, time in ms; checksum of all these."""

_HEAD_CHECKED_BYTES = HEAD.size - 4


class SpoolDamaged(Exception):
    """A spool that does not read back as it was written. `whole` facts before the damage can be read."""

    def __init__(self, path: Path, offset: int, problem: str, whole: int) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {problem}; {whole} facts before it are whole")
        self.path = path
        self.offset = offset
        self.problem = problem
        self.whole = whole


class Record(NamedTuple):
    """One batch. `at` is when it was appended, in milliseconds since the epoch."""

    number: int
    facts: int
    at: int
    payload: bytes

    @property
    def size(self) -> int:
        """In the file."""
        return HEAD.size + len(self.payload)


def encoded(record: Record) -> bytes:
    """A record as it stands in the file."""
    head = HEAD.pack(
        len(record.payload), zlib.crc32(record.payload), record.number, record.facts, record.at, 0
    )[:_HEAD_CHECKED_BYTES]
    return head + struct.pack("<I", zlib.crc32(head)) + record.payload


def walk(paths: Sequence[Path]) -> Iterator[tuple[Path, Record]]:
    """Every record in these segments, with the segment it stands in. Raises SpoolDamaged at the first that
    does not check, and where some are missing."""
    whole = 0
    last: int | None = None
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            begins = os.pread(descriptor, len(MAGIC), 0)
            if begins != MAGIC:
                if MAGIC.startswith(begins) or _only_zeros(descriptor, 0):
                    continue
                raise SpoolDamaged(path, 0, "it does not begin as a spool does", whole)
            position = len(MAGIC)
            while (record := record_at(descriptor, position)) is not None:
                if isinstance(record, str):
                    raise SpoolDamaged(path, position, record, whole)
                # The last record of an abandoned segment may have got to the disk and be there again.
                again = position == len(MAGIC) and record.number == last
                if last is not None and record.number != last + 1 and not again:
                    raise SpoolDamaged(path, position, f"record {record.number} follows record {last}", whole)
                yield path, record
                last = record.number
                whole += record.facts
                position += record.size
        finally:
            os.close(descriptor)


def record_at(descriptor: int, position: int) -> Record | str | None:
    """The record that begins here; a phrase for what is wrong with it; None where the synced part ends."""
    head = os.pread(descriptor, HEAD.size, position)
    if len(head) < HEAD.size:
        return None
    length, checksum, number, facts, at, head_checksum = HEAD.unpack(head)
    if zlib.crc32(head[:_HEAD_CHECKED_BYTES]) != head_checksum:
        return None if _only_zeros(descriptor, position) else "the head of a record does not check"
    payload = os.pread(descriptor, length, position + HEAD.size)
    if len(payload) < length:
        return None
    if zlib.crc32(payload) != checksum:
        return f"record {number} does not check"
    return Record(number, facts, at, payload)


def _only_zeros(descriptor: int, position: int) -> bool:
    """Whether nothing but zeros follows: room that a crash left without what was to be written there."""
    while chunk := os.pread(descriptor, 1 << 20, position):
        if chunk.strip(b"\0"):
            return False
        position += len(chunk)
    return True
