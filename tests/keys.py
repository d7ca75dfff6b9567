"""Ids of sessions for tests, and what clients write where the code or the id of one belongs."""

from __future__ import annotations

from hypothesis import strategies as st


def session_id(number: int) -> str:
    """The id of the session with this number, as real ones look."""
    return f"{number:08x}-0000-7000-8000-000000000000"


_HEX = "0123456789abcdef"

NOT_QUITE = (
    "1_2_3_4_5_6_7_8_9_0_1_2_3_4_5_67",
    "1-2-3-4-5-6-7-8-9-0-1-2-3-4-5-6-7-8-9-0-1-2-3-4-5-6-7-8-9-0-1-2",
    "00000000000070008000000000000001",
    "{00000001-0000-7000-8000-000000000000}",
    "urn:uuid:00000001-0000-7000-8000-000000000000",
    "00000001-0000-7000-8000-00000000000A",
    "00000001-0000-7000-8000-000000000000\n",
    "00000001\u20130000\u20137000\u20138000\u2013000000000000",
    "\uff10" * 8 + "-0000-7000-8000-000000000000",
    "\u0661\u0662\u0663\u0664\u0665\u0666",
    "\uff11\uff12\uff13\uff14\uff15\uff16",
    "1_2_3_",
    "12345",
    "1234567",
    "123456\n",
    " 12345",
    "+12345",
    "-12345",
    "1e5000",
    "x' OR 1=1",
    "\x00" * 6,
    "a" * 64,
    "f" * 32,
    "",
)
"""Not the keys of sessions, though one parser or another takes most of them for one."""

KEYS = st.one_of(
    st.sampled_from(NOT_QUITE),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=70),
    st.text(_HEX + "_-", min_size=1, max_size=66),
    st.text(_HEX.upper() + "-{}", min_size=30, max_size=40),
    st.text("0123456789_\u0663\uff15\U0001d7d9", min_size=6, max_size=6),
    st.uuids().map(lambda each: str(each).upper()),
    st.uuids().map(lambda each: each.hex),
    st.uuids().map(lambda each: "_".join(each.hex)),
    st.uuids().map(str),
    st.from_regex(r"[0-9]{6}", fullmatch=True),
)
"""Whatever a client may write there; some of it could be the key of a session."""
