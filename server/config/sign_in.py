"""Settings of who may author besides the bearer of the author key: those who sign in by OpenID Connect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.config import kinds
from server.config.kinds import setting_field as _setting


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInSettings:
    """Part of `Config`."""

    oidc_issuer: str | None = _setting(
        None,
        kinds.optional(kinds.issuer()),
        "the OpenID Connect provider by which authors sign in; without it the author key alone counts",
    )
    oidc_client_id: str | None = _setting(
        None, kinds.optional(kinds.text(256)), "what the provider calls this service"
    )
    oidc_client_secret_file: Path | None = _setting(  # noqa: RUF009 - a field()
        None,
        kinds.optional(kinds.PATH),
        "file with the secret that the provider has given this service; without it PKCE alone counts",
    )
    oidc_scopes: str = _setting(
        "openid profile", kinds.text(500), "what the provider is asked for, with blanks in between"
    )
    oidc_roles_claim: str = _setting(
        "roles",
        kinds.text(256),
        "claim of the ID token that lists a user's roles; dots lead into objects, as in realm_access.roles",
    )
    oidc_author_role: str = _setting(
        "author", kinds.text(128), "role of those who may author and host; * for all who can sign in"
    )
    oidc_admin_role: str = _setting(
        "admin", kinds.text(128), "role of those who may read and write what is others' too"
    )
    sign_in_s: int = _setting(
        3_600,
        kinds.integer(60, 43_200),
        "seconds without a request after which an author has to sign in again; after 12 hours in any case",
    )
    others_readable: bool = _setting(
        False, kinds.BOOLEAN, "whether authors may read and play each other's quizzes, and read the results"
    )
