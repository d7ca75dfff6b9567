"""Values that must be the same on all nodes of a cluster, and how nodes compare them before they work
together.

Each node shows marks of these values in its heartbeat. The mark of a secret is an HMAC under the secret of
the cluster: equal marks mean equal values, and reveal nothing else. The mark of a version is the range that
this release works with: nodes of two releases run side by side during an upgrade. A mark that only one of two
nodes has is ignored: the release of the other does not know it, or its setting is not made.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence

Marks = Mapping[str, str]

MARK_BYTES = 12

_VERSIONS = {"schema": "the version of the database's schema", "protocol": "the version of the protocol"}
_SAID = {
    "secret": "the secret",
    "author_key": "the author key",
    "identity": "how identity tokens are checked",
    **_VERSIONS,
}


def marks_of(
    secret: bytes,
    author_key: str | None,
    *,
    identity: Sequence[str] = (),
    schema: tuple[int, int],
    protocol: tuple[int, int],
) -> Marks:
    """The marks of a node.

    Args:
        identity: how it checks identity tokens.
        schema, protocol: the oldest and the newest version that it works with.
    """
    said = {
        "secret": _mark(secret, "secret"),
        "schema": "{}-{}".format(*schema),
        "protocol": "{}-{}".format(*protocol),
    }
    if identity:
        said["identity"] = _mark(secret, "identity", *identity)
    if author_key is not None:
        said["author_key"] = _mark(secret, "author_key", author_key)
    return said


def difference(ours: Marks, theirs: Marks) -> str | None:
    """Why two nodes cannot work together, as in "the secret"; None if they can."""
    for name in _SAID:
        if name in ours and name in theirs:
            alike = _overlap(ours[name], theirs[name]) if name in _VERSIONS else ours[name] == theirs[name]
            if not alike:
                return _SAID[name]
    return None


def _mark(secret: bytes, *words: str) -> str:
    return hmac.digest(secret, "\0".join(("fanfare mark", *words)).encode(), "sha256")[:MARK_BYTES].hex()


def _overlap(one: str, other: str) -> bool:
    try:
        (oldest, newest), (their_oldest, their_newest) = (map(int, each.split("-")) for each in (one, other))
    except ValueError:
        return False
    return max(oldest, their_oldest) <= min(newest, their_newest)
