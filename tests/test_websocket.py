"""WebSocket framing: examples from RFC 6455, and wsproto as the oracle in both directions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from engine import websocket as ws
from engine.websocket import Event, FramingError, Parser

BOUND = 100_000
few = settings(max_examples=60, deadline=None)
many = settings(max_examples=150, deadline=None)

Outcome = tuple[list[Event], int | None]
"""The events, and the close code of the error that ended them."""


def parsed(data: Sequence[bytes], *, masked: bool, bound: int = BOUND) -> Outcome:
    parser = Parser(masked=masked, message_bytes_max=bound)
    events: list[Event] = []
    try:
        for chunk in data:
            parser.feed(chunk)
            while (event := parser.next_event()) is not None:
                events.append(event)
    except FramingError as error:
        return events, error.code
    return events, None


def judged_by_wsproto(data: bytes, *, masked: bool) -> Outcome:
    oracle = FrameProtocol(client=not masked, extensions=[])
    oracle.receive_bytes(data)
    events: list[Event] = []
    pieces: list[bytes] = []
    try:
        for frame in oracle.received_frames():
            payload: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                code, reason = payload
                events.append(
                    Event(8, b"" if code == 1005 else int(code).to_bytes(2, "big") + reason.encode())
                )
                break
            if frame.opcode.iscontrol():
                events.append(Event(int(frame.opcode), bytes(payload)))
                continue
            pieces.append(payload.encode() if isinstance(payload, str) else bytes(payload))
            if frame.frame_finished and frame.message_finished:
                events.append(Event(int(frame.opcode), b"".join(pieces)))
                pieces.clear()
    except ParseFailed as error:
        return events, int(error.code)
    return events, None


# -- what both sides may say -------------------------------------------------------------------------

payloads = st.binary(max_size=300) | st.sampled_from([125, 126, 127, 600, 601, 65_535, 65_536]).map(
    os.urandom
)
texts = st.text(max_size=200).map(str.encode)
controls = st.tuples(st.sampled_from([ws.PING, ws.PONG]), st.binary(max_size=125))
codes = st.sampled_from([1000, 1003, 1007, 1013, 3000, 4999])
closings = st.tuples(codes, st.text(max_size=30).map(str.encode)).map(
    lambda each: each[0].to_bytes(2, "big") + each[1]
) | st.just(b"")


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[int, bytes, bool]]:
    """Valid frames (opcode, payload, fin): messages in any number of pieces with control frames in between,
    and perhaps a close frame at the end."""
    frames: list[tuple[int, bytes, bool]] = []
    for _ in range(draw(st.integers(0, 4))):
        text = draw(st.booleans())
        whole = draw(texts if text else payloads)
        cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
        opcode = ws.TEXT if text else ws.BINARY
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            frames += [(kind, data, True) for kind, data in draw(st.lists(controls, max_size=2))]
            frames.append((opcode, whole[start:end], False))
            opcode = ws.CONTINUATION
        frames[-1] = (*frames[-1][:2], True)
    if draw(st.booleans()):
        frames.append((ws.CLOSE, draw(closings), True))
    return frames


def meant(frames: Sequence[tuple[int, bytes, bool]]) -> list[Event]:
    events: list[Event] = []
    kind, pieces = 0, b""
    for opcode, payload, fin in frames:
        if opcode >= ws.CLOSE:
            events.append(Event(opcode, payload))
            continue
        kind, pieces = opcode or kind, pieces + payload
        if fin:
            events.append(Event(kind, pieces))
            pieces = b""
    return events


def encoded(frames: Sequence[tuple[int, bytes, bool]], masks: Iterator[bytes] | None) -> bytes:
    return b"".join(
        ws.encode_frame(opcode, payload, fin=fin, mask=next(masks) if masks else None)
        for opcode, payload, fin in frames
    )


def some_masks(seed: bytes) -> Iterator[bytes]:
    number = int.from_bytes(seed, "big")
    while True:
        number = (number * 1_103_515_245 + 12_345) % 2**32
        yield number.to_bytes(4, "big")


@st.composite
def chunkings(draw: st.DrawFn, data: bytes) -> list[bytes]:
    if len(data) < 400 and draw(st.booleans()):
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@many
@given(st.data(), conversations(), st.booleans(), st.binary(min_size=4, max_size=4))
def test_what_is_encoded_is_read_in_any_pieces(
    data: st.DataObject, frames: list[tuple[int, bytes, bool]], masked: bool, seed: bytes
) -> None:
    wire = encoded(frames, some_masks(seed) if masked else None)
    assert parsed(data.draw(chunkings(wire)), masked=masked) == (meant(frames), None)


@many
@given(conversations(), st.booleans(), st.binary(min_size=4, max_size=4))
def test_wsproto_reads_what_is_encoded(
    frames: list[tuple[int, bytes, bool]], masked: bool, seed: bytes
) -> None:
    wire = encoded(frames, some_masks(seed) if masked else None)
    assert judged_by_wsproto(wire, masked=masked) == (meant(frames), None)


@many
@given(st.data(), conversations(), st.booleans())
def test_what_wsproto_encodes_is_read(
    data: st.DataObject, frames: list[tuple[int, bytes, bool]], masked: bool
) -> None:
    other = FrameProtocol(client=masked, extensions=[])
    wire = b"".join(
        bytes(other._serialize_frame(Opcode(opcode), payload, fin)) for opcode, payload, fin in frames
    )
    assert parsed(data.draw(chunkings(wire)), masked=masked) == (meant(frames), None)


# -- what nobody may say -----------------------------------------------------------------------------


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """The first bytes of a frame, mostly wrong in some way, and some payload."""
    head = bytes([draw(st.integers(0, 255)), draw(st.integers(0, 255))])
    return head + draw(st.binary(max_size=20))


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A valid conversation in which some bytes were changed, taken out or put in."""
    data = bytearray(encoded(draw(conversations()), some_masks(draw(st.binary(min_size=4, max_size=4)))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@many
@given(st.data(), heads() | mutations() | st.binary(max_size=200), st.booleans())
def test_garbage_is_an_error_with_a_code_and_never_another(
    data: st.DataObject, garbage: bytes, masked: bool
) -> None:
    outcome = parsed(data.draw(chunkings(garbage)), masked=masked)
    assert outcome == parsed([garbage], masked=masked)
    assert outcome[1] in (None, 1002, 1007, 1009)


@settings(max_examples=300, deadline=None)
@given(heads() | mutations() | st.binary(max_size=200), st.booleans())
def test_garbage_is_judged_as_wsproto_judges_it(garbage: bytes, masked: bool) -> None:
    events, code = parsed([garbage], masked=masked, bound=2**64)
    others, other_code = judged_by_wsproto(garbage, masked=masked)
    if events and events[-1].opcode == ws.CLOSE and events[-1].payload[:2] == (1014).to_bytes(2, "big"):
        return  # registered since, and unknown there
    if other_code is not None and code is None:
        # wsproto looks at the payload of a frame as it comes, we when the frame is whole.
        assert other_code == 1007
    elif code is not None and other_code is None:
        # We look at the first two bytes of a head as soon as they are there, wsproto at the whole head.
        assert code == 1002
    else:
        assert code == other_code
    assert events == others


@few
@given(st.binary(max_size=64), st.binary(max_size=64))
def test_nothing_comes_after_an_error_or_a_close_frame(first: bytes, second: bytes) -> None:
    for end in (b"\xff\xff", ws.encode_close(1000, mask=b"abcd")):
        parser = Parser(masked=True, message_bytes_max=BOUND)
        parser.feed(end + first)
        try:
            assert parser.next_event() == Event(ws.CLOSE, b"\x03\xe8")
        except FramingError:
            assert end == b"\xff\xff"
        parser.feed(second)
        assert parser.next_event() is None
        assert parser.ended
        assert not parser.clean


@many
@given(st.binary(max_size=140) | texts, st.binary(min_size=4, max_size=4), st.binary(max_size=3))
def test_the_short_way_agrees_with_the_long_one(payload: bytes, mask: bytes, more: bytes) -> None:
    for data in (
        ws.encode_frame(ws.TEXT, payload, mask=mask) + more,
        ws.encode_frame(ws.TEXT, payload, mask=mask)[: -1 - len(more)],
        ws.encode_frame(ws.TEXT, payload),
        ws.encode_frame(ws.BINARY, payload, mask=mask),
        ws.encode_frame(ws.TEXT, payload, mask=mask, fin=False),
    ):
        shortcut = ws.read_text(data)
        events, code = parsed([data], masked=True)
        if shortcut is not None:
            assert (events, code) == ([Event(ws.TEXT, shortcut)], None)
        elif code is None and events == [Event(ws.TEXT, payload)]:
            assert len(payload) > 125 or more


@many
@given(payloads, st.binary(min_size=4, max_size=4))
def test_masking_is_what_the_rfc_says(payload: bytes, mask: bytes) -> None:
    masked = ws.apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert ws.apply_mask(masked, mask) == payload


@many
@given(texts | payloads)
def test_a_text_frame_of_a_server_is_an_unmasked_frame(payload: bytes) -> None:
    assert ws.encode_text_frame(payload) == ws.encode_frame(ws.TEXT, payload)


# -- examples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "masked", "event"),
    [
        ("81 05 48 65 6c 6c 6f", False, Event(ws.TEXT, b"Hello")),
        ("81 85 37 fa 21 3d 7f 9f 4d 51 58", True, Event(ws.TEXT, b"Hello")),
        ("01 03 48 65 6c 80 02 6c 6f", False, Event(ws.TEXT, b"Hello")),
        ("89 05 48 65 6c 6c 6f", False, Event(ws.PING, b"Hello")),
        ("8a 85 37 fa 21 3d 7f 9f 4d 51 58", True, Event(ws.PONG, b"Hello")),
    ],
)
def test_examples_of_rfc_6455_section_5_7(wire: str, masked: bool, event: Event) -> None:
    assert parsed([bytes.fromhex(wire)], masked=masked) == ([event], None)


@pytest.mark.parametrize(
    ("length", "head"), [(256, "82 7e 01 00"), (65_536, "82 7f 00 00 00 00 00 01 00 00")]
)
def test_long_lengths_of_rfc_6455_section_5_7(length: int, head: str) -> None:
    frame = ws.encode_frame(ws.BINARY, bytes(length))
    assert frame == bytes.fromhex(head) + bytes(length)
    assert parsed([frame], masked=False) == ([Event(ws.BINARY, bytes(length))], None)


def test_the_accept_key_of_rfc_6455_section_1_3() -> None:
    assert ws.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        ("c1 00", 1002),
        ("a1 00", 1002),
        ("91 00", 1002),
        ("83 00", 1002),
        ("8b 00", 1002),
        ("80 00", 1002),
        ("01 00 01 00", 1002),
        ("01 00 81 00", 1002),
        ("09 00", 1002),
        ("89 7e 00 7e", 1002),
        ("88 01 03", 1002),
        ("81 80", 1002),
        ("81 7e 00 7d", 1002),
        ("81 7f 00 00 00 00 00 00 ff ff", 1002),
        ("81 7f 80 00 00 00 00 00 00 00", 1002),
        ("81 7f 7f ff ff ff ff ff ff ff", 1009),
        ("81 02 c3 28", 1007),
        ("01 01 c3 80 01 28", 1007),
        ("01 02 c3 28", 1007),
        ("81 03 ed a0 80", 1007),
        ("88 03 03 e8 ff", 1007),
    ],
)
def test_what_breaks_the_rules(wire: str, code: int) -> None:
    assert parsed([bytes.fromhex(wire)], masked=False) == ([], code)


def test_a_character_may_be_cut_by_fragments() -> None:
    whole = "né".encode()
    wire = ws.encode_frame(ws.TEXT, whole[:2], fin=False) + ws.encode_frame(ws.CONTINUATION, whole[2:])
    assert parsed([wire], masked=False) == ([Event(ws.TEXT, whole)], None)


def test_events_before_an_error_are_told_before_it() -> None:
    wire = ws.encode_text_frame(b"one") + ws.encode_frame(ws.PING, b"two") + b"\x83\x00"
    assert parsed([wire], masked=False) == ([Event(ws.TEXT, b"one"), Event(ws.PING, b"two")], 1002)


def test_the_bound_is_exact_and_holds_for_the_whole_message() -> None:
    fits = ws.encode_frame(ws.BINARY, bytes(100))
    assert parsed([fits], masked=False, bound=100) == ([Event(ws.BINARY, bytes(100))], None)
    head = ws.encode_frame(ws.BINARY, bytes(101))[:2]
    assert parsed([head], masked=False, bound=100) == ([], 1009)
    first = ws.encode_frame(ws.BINARY, bytes(60), fin=False)
    ping = ws.encode_frame(ws.PING, bytes(125))
    assert parsed([first, ping, b"\x80\x28" + bytes(40)], masked=False, bound=100)[1] is None
    assert parsed([first, ping, b"\x80\x29"], masked=False, bound=100) == ([Event(ws.PING, bytes(125))], 1009)
    assert parsed([fits * 3], masked=False, bound=100)[1] is None


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_codes_that_are_none(code: int) -> None:
    with pytest.raises(FramingError, match="no close code") as caught:
        ws.read_close(code.to_bytes(2, "big"))
    assert caught.value.code == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1010, 1014, 3000, 4008, 4999])
def test_codes_that_are_codes(code: int) -> None:
    assert ws.read_close(code.to_bytes(2, "big") + b"why") == (code, "why")


def test_a_close_frame_without_a_code() -> None:
    assert ws.encode_close(ws.NO_CODE) == b"\x88\x00"
    assert ws.read_close(b"") == (1005, "")


def test_a_long_reason_is_cut_at_a_character() -> None:
    frame = ws.encode_close(4000, "é" * 100)
    assert len(frame) == 2 + 2 + 122
    assert ws.read_close(frame[2:]) == (4000, "é" * 61)


def test_a_parser_that_holds_something_is_not_clean() -> None:
    parser = Parser(masked=True, message_bytes_max=BOUND)
    assert parser.clean
    parser.feed(b"\x01")
    assert not parser.clean
    parser.feed(b"\x80abcd")
    assert parser.next_event() is None
    assert not parser.clean
    parser.feed(b"\x80\x80abcd")
    assert parser.next_event() == Event(ws.TEXT, b"")
    assert parser.clean
    assert not parser.ended
