"""Authors sign in at a real provider, in a real browser, and each has what is theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import Page, expect

from tests.e2e.node import running_node
from tests.web.accessibility import fits, no_violations
from tests.web.chromium import Chromium, Visit, screenshot
from tests.web.test_author import write

USERS = (
    User(sub="ada", claims={"name": "Ada Lovelace", "roles": ["author"]}),
    User(sub="ben", claims={"name": "Ben", "roles": ["author"]}),
    User(sub="eve", claims={"name": "Eve", "roles": ["admin"]}),
    User(sub="tim", claims={"name": "Tim", "roles": ["player"]}),
)


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
    with run_server_in_thread(user_claims=USERS) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")  # of the provider, about itself
async def test_authors_sign_in_and_have_their_own_quizzes_and_sessions(
    chromium: Chromium, issuer: str, short_tmp_path: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "client-secret"
    secret.write_text("s3cret/of the client\n")
    options = ["--oidc-issuer", issuer, "--oidc-client-id", "fanfare", "--no-samples"]
    options += ["--oidc-client-secret-file", str(secret)]

    def script(visit: Visit) -> None:
        # The provider's page wants its looks from elsewhere, and has no icon. The API tells who is not
        # signed in.
        visit.allow("cdn.jsdelivr.net", "favicon.ico", r"\b401\b", r"\b403\b")

        def sign_in(sub: str, path: str = "/author") -> Page:
            page = visit.page(size="desktop")
            page.goto(f"{url}{path}")
            page.get_by_role("link", name="Sign in").click()
            page.get_by_role("button", name=sub, exact=True).click()
            return page

        page = visit.page(size="desktop")
        page.goto(f"{url}/author")
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        no_violations(page)
        screenshot(page, "sign-in-asked")
        german = visit.page(lang="de-DE")
        german.goto(f"{url}/host")
        expect(german.get_by_role("link", name="Anmelden")).to_be_visible()
        expect(german.get_by_role("dialog", name="Wer bist du?")).to_contain_text(
            "Oder mit dem Autorenschlüssel"
        )
        go, cancel = (
            german.get_by_role("button", name=name).bounding_box() for name in ("Weiter", "Abbrechen")
        )
        assert go is not None
        assert cancel is not None
        assert go["y"] == cancel["y"], "side by side"
        no_violations(german)
        fits(german)
        screenshot(german, "sign-in-asked-german")
        german.goto(f"{url}/login/failed?why=login_no_role")
        expect(german.get_by_role("heading")).to_have_text("Du bist nicht angemeldet")
        no_violations(german)
        fits(german)
        screenshot(german, "sign-in-failed-german")
        ada = sign_in("ada")
        expect(ada.locator("#me")).to_contain_text("Ada Lovelace")
        no_violations(ada)
        fits(ada)
        screenshot(ada, "signed-in")
        ada.locator("#new").click()
        ada.get_by_label("Title").fill("Of Ada")
        write(ada, 1, "true_false")
        ada.locator("#save").click()
        expect(ada.locator("#state")).to_have_text("Saved as version 1")
        ada.goto(f"{url}/host")
        expect(ada.locator("#me")).to_contain_text("Ada Lovelace")
        screenshot(ada, "signed-in-host")
        ada.locator("#open").click()
        expect(ada.locator("#start")).to_be_visible()

        ben = sign_in("ben", "/host?quiz=of-ada")
        expect(ben).to_have_url(f"{url}/host?quiz=of-ada")
        expect(ben.locator("#open")).to_be_enabled()
        expect(ben.locator("#quizzes label")).to_have_count(0)
        expect(ben.locator("#others li")).to_have_count(0)
        ben.goto(f"{url}/author")
        expect(ben.locator("#none")).to_be_visible()
        ben.goto(f"{url}/author?quiz=of-ada")
        expect(ben.locator("#alert")).to_have_text("This belongs to somebody else.")

        eve = sign_in("eve", "/author?quiz=of-ada")
        eve.get_by_label("Title").fill("Of Ada, by Eve")
        eve.locator("#save").click()
        expect(eve.locator("#state")).to_have_text("Saved as version 2")
        ada.goto(f"{url}/author")
        expect(ada.locator("#quizzes li")).to_have_count(1)
        expect(ada.locator("#quizzes .title")).to_have_text("Of Ada, by Eve")

        ada.goto(f"{url}/ops")
        expect(ada.get_by_role("alert")).to_have_text("This page is for admins.")
        eve.goto(f"{url}/ops")
        expect(eve.locator("#well")).not_to_be_empty()
        expect(eve.locator("#me")).to_contain_text("Eve")
        ada.goto(f"{url}/author")

        ada.get_by_role("button", name="Sign out").click()
        expect(ada.get_by_role("link", name="Sign in")).to_be_visible()
        expect(ada.locator("#quizzes li")).to_have_count(0)

        tim = sign_in("tim")
        expect(tim).to_have_url(re.compile("/login/failed"))
        expect(tim.get_by_role("alert")).to_contain_text("may not write or host quizzes")
        expect(tim.locator("#code")).to_have_text("Code: login_no_role")
        no_violations(tim)
        fits(tim)
        screenshot(tim, "sign-in-failed")

    async with running_node(short_tmp_path / "sign-in", *options) as (node, _):
        url = node.url
        await chromium.run(script, within_s=120)
