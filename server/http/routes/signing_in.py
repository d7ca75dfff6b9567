"""Signing in and out."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Operation
from server.http.routes.pages import FORWARD
from server.http.routes.route import Route
from server.wire.api import authors, queries

SIGNING_IN = (
    Route(
        "GET",
        "/login",
        lambda views: views.signing_in.start,
        Operation(
            "signIn",
            "Sign in as an author",
            "pages",
            description="To the OpenID Connect provider of this service, and from there to /login/back.",
            query=queries.SignInQuery,
            gives=(FORWARD,),
            codes=("bad_message",),
        ),
    ),
    Route(
        "GET",
        "/login/back",
        lambda views: views.signing_in.back,
        Operation(
            "signedIn",
            "Where the provider sends the browser to",
            "pages",
            gives=(FORWARD,),
            codes=("bad_message",),
        ),
    ),
    Route(
        "GET",
        "/api/me",
        lambda views: views.signing_in.me,
        Operation(
            "showMe",
            "Who is signed in",
            "quizzes",
            description="By the cookie that /login sets. The author key is for machines and has no name.",
            query=queries.NoQuery,
            gives=(Gives(200, "The author, or nobody.", authors.Me, examples.ME),),
        ),
    ),
    Route(
        "POST",
        "/logout",
        lambda views: views.signing_in.end,
        Operation(
            "signOut",
            "Sign out",
            "pages",
            query=queries.NoQuery,
            codes=("origin_refused",),
            gives=(Gives(200, "The cookie is gone.", authors.SignedOut, examples.SIGNED_OUT),),
        ),
    ),
)
