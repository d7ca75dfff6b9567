"""Authors who sign in."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from server.wire.api.common import Body


class Me(Body):
    """Who is signed in."""

    sign_in: Annotated[bool, Meta(description="Whether authors can sign in here, at /login.")]
    user_id: Annotated[str | None, Meta(description="The signed-in author; null if nobody is.")]
    name: Annotated[str | None, Meta(description="To be shown; may be empty.")]
    admin: Annotated[bool, Meta(description="Whether the author may read and write what is others'.")]


class SignedOut(Body):
    """Nobody is signed in in this browser any more."""

    signed_out: bool
