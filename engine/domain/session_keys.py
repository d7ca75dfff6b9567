"""What may name a session: the six-digit code that players type, or the id under which it is stored.

Each has one form only. Python's `UUID()` and PostgreSQL take ids in more forms, not in the same ones, and
none of those names the session: the hash of an id says which node is to run it.
"""

from __future__ import annotations

import re
from typing import Final

_CODE: Final = re.compile(r"[0-9]{6}")
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_code(key: str) -> bool:
    """Whether this is the code of a session, or could be."""
    return _CODE.fullmatch(key) is not None


def is_id(key: str) -> bool:
    """Whether this is the id of a session, or could be: a UUID as `new_id` and PostgreSQL write it."""
    return _ID.fullmatch(key) is not None


def is_session_key(key: str) -> bool:
    """Whether a session may be found under this. Whoever is asked for one under anything else knows without a
    look that there is none."""
    return is_code(key) or is_id(key)
