"""Which identity tokens a node believes, and which of them it refuses with which code."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.actors.commands import Identity
from server.runtime.logs import OfRequest
from server.runtime.request_ids import ForRequest
from server.security import key_ring
from server.security.identity import Identities, IdentityError, is_identity
from server.security.key_ring import KeyRing, KeysUnavailable, keys_in
from tests.identities import (
    AUDIENCE,
    ISSUER,
    NOW_S,
    SECRET,
    FixedKeys,
    claims,
    key_set,
    made_up,
    private_key,
    public_jwk,
    public_pem,
    signed,
)

ALGORITHMS = ("EdDSA", "ES256", "RS256")


class Clock:
    def __init__(self) -> None:
        self.ms = NOW_S * 1000

    def now_ms(self) -> int:
        return self.ms


def identities(keys: KeyRing | None = None, secret: str | None = SECRET, **more: Any) -> Identities:
    given = {"issuer": ISSUER, "audience": AUDIENCE, "leeway_s": 30.0, **more}
    demand, clock = given.pop("demand", "optional"), given.pop("clock", Clock())
    return Identities(demand, clock, secret=secret, keys=keys, **given)


def all_keys() -> FixedKeys:
    return FixedKeys(*map(public_jwk, ALGORITHMS))


def told(identities: Identities, token: str) -> Identity | str:
    """The identity, or the code of the refusal."""
    found: list[Identity | IdentityError] = []
    identities.read(token, found.append)
    [one] = found
    return one.code if isinstance(one, IdentityError) else one


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "HS256"])
def test_what_the_app_has_signed_is_believed(algorithm: str) -> None:
    token = signed(
        algorithm=algorithm, name="Ada", locale="pt-BR", extra_time=1.5, picture="https://x.example"
    )
    for _ in range(2):
        assert told(identities(all_keys()), token) == Identity("ada@app", "Ada", "pt-BR", 1.5)


REFUSED: Mapping[str, tuple[str, Callable[[], str]]] = {
    "no token": ("identity_invalid", lambda: "x"),
    "no head": ("identity_invalid", lambda: "eyJ.e30."),
    "no ascii": ("identity_invalid", lambda: "é.e30."),
    "too long": ("identity_invalid", lambda: signed() + "x" * 2_048),
    "alg none": ("identity_algorithm", lambda: made_up({"alg": "none"})),
    "alg None": ("identity_algorithm", lambda: made_up({"alg": "None"}, b"x")),
    "no alg": ("identity_invalid", lambda: made_up({})),
    "alg is a list": ("identity_invalid", lambda: made_up({"alg": ["HS256"]})),
    "kid is a number": ("identity_invalid", lambda: made_up({"alg": "HS256", "kid": 7})),
    "forged": ("identity_invalid", lambda: made_up({"alg": "HS256"}, b"\0" * 32)),
    "forged EdDSA": ("identity_invalid", lambda: made_up({"alg": "EdDSA", "kid": "EdDSA 0"}, b"\0" * 64)),
    "forged ES256": ("identity_invalid", lambda: made_up({"alg": "ES256", "kid": "ES256 0"}, b"\0" * 64)),
    "forged RS256": ("identity_invalid", lambda: made_up({"alg": "RS256", "kid": "RS256 0"}, b"")),
    "cut off": ("identity_invalid", lambda: signed()[:-2]),
    "not on the list": ("identity_algorithm", lambda: jwt.encode(claims(), SECRET * 2, "HS512")),
    "crit": ("identity_invalid", lambda: jwt.encode(claims(), SECRET, headers={"crit": ["x"], "x": 1})),
    "expired": ("identity_expired", lambda: signed(exp=NOW_S - 30)),
    "for ever": ("identity_invalid", lambda: signed(exp=None)),
    "exp is text": ("identity_invalid", lambda: signed(exp="soon")),
    "exp is true": ("identity_invalid", lambda: signed(exp=True)),
    "not yet": ("identity_invalid", lambda: signed(nbf=NOW_S + 31)),
    "of the future": ("identity_invalid", lambda: signed(iat=NOW_S + 31)),
    "wrong audience": ("identity_audience", lambda: signed(aud="other")),
    "wrong audiences": ("identity_audience", lambda: signed(aud=["other", "another"])),
    "no audience": ("identity_audience", lambda: signed(aud=None)),
    "wrong issuer": ("identity_issuer", lambda: signed(iss="https://evil.example")),
    "no issuer": ("identity_issuer", lambda: signed(iss=None)),
    "no user": ("identity_invalid", lambda: signed("")),
    "a long user": ("identity_invalid", lambda: signed("x" * 129)),
    "a user with a control character": ("identity_invalid", lambda: signed("a\nb")),
    "a number as user": ("identity_invalid", lambda: jwt.encode({**claims(), "sub": 7}, SECRET)),
    "name is a number": ("identity_invalid", lambda: signed(name=7)),
    "locale is none": ("identity_invalid", lambda: signed(locale="<b>")),
    "less time": ("identity_invalid", lambda: signed(extra_time=0.5)),
    "too much time": ("identity_invalid", lambda: signed(extra_time=4.5)),
    "extra_time is true": ("identity_invalid", lambda: signed(extra_time=True)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    code, token = REFUSED[what]
    assert told(identities(all_keys()), token()) == code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_public_key_is_never_the_secret_of_hs256(algorithm: str) -> None:
    """PyJWT would not sign with such a key either, so this is done by hand."""
    head = made_up({"alg": "HS256", "kid": f"{algorithm} 0"}).rpartition(".")[0]
    for key in (public_pem(algorithm), public_pem(algorithm).strip()):
        token = made_up({"alg": "HS256", "kid": f"{algorithm} 0"}, hmac.digest(key, head.encode(), "sha256"))
        for secret, code in ((None, "identity_algorithm"), (SECRET, "identity_invalid")):
            assert told(identities(all_keys(), secret), token) == code


def test_a_key_goes_with_one_algorithm_and_without_its_id_only_where_it_is_the_only_one() -> None:
    keys = FixedKeys(
        public_jwk("ES256", kid="a"), public_jwk("RS256", kid="b"), public_jwk("RS256", 1, kid="c")
    )
    readers = identities(keys, None)
    without_id = jwt.encode(claims(), private_key("ES256"), algorithm="ES256")
    assert told(readers, without_id) == Identity("ada@app")
    assert keys.find(None, "RS256") is None
    assert keys.find("a", "RS256") is None
    assert keys.find("a", "EdDSA") is None


def test_leeway_and_lists_of_audiences() -> None:
    readers = identities()
    for more in ({"exp": NOW_S - 29}, {"nbf": NOW_S + 30}, {"iat": NOW_S + 29.5}, {"aud": ["x", AUDIENCE]}):
        assert told(readers, signed(**more)) == Identity("ada@app")
    assert told(identities(audience=None), signed()) == "identity_audience", "it is for somebody else"
    assert told(identities(audience=None, issuer=None), signed(aud=None, iss=None)) == Identity("ada@app")


def test_a_token_that_was_good_expires_all_the_same_and_a_key_that_goes_takes_its_tokens_along() -> None:
    clock, keys = Clock(), all_keys()
    readers = identities(keys, clock=clock)
    token = signed(algorithm="ES256")
    assert told(readers, token) == Identity("ada@app")
    clock.ms += 630_000
    assert told(readers, token) == "identity_expired"
    clock.ms -= 630_000
    keys._keys = keys_in(key_set(public_jwk("EdDSA")))
    assert told(readers, token) == Identity("ada@app"), "it is known"
    keys.generation += 1
    assert keys.find("ES256 0", "ES256") is None
    unknown: list[object] = []
    readers.read(token, unknown.append)
    assert not unknown, "it waits for the key"


def test_what_counts_as_a_wrong_try() -> None:
    def counted(token: str, readers: Identities) -> bool:
        found: list[Any] = []
        readers.read(token, found.append)
        return bool(found[0].guessed)

    assert counted("x", identities())
    assert counted(signed(aud="other"), identities())
    assert not counted(signed(exp=NOW_S - 31), identities()), "it was good once"
    assert not counted("x", identities(demand="off"))


def test_a_node_that_takes_no_identities_and_a_node_that_demands_them() -> None:
    assert told(identities(demand="off"), signed()) == "identity_off"
    assert identities().refuse_guest() is None
    refusal = identities(demand="required").refuse_guest()
    assert refusal is not None
    assert refusal.code == "identity_required"


@given(st.text() | st.from_regex(r"eyJ[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
def test_nonsense_is_refused_and_nothing_else_happens(token: str) -> None:
    assert told(identities(), token) == "identity_invalid"


def test_a_token_of_ours_is_no_identity() -> None:
    assert is_identity(signed())
    for other in ("WyIwMWEy.ZZ.sig", "author-key", "eyJ", "eyJ.x"):
        assert not is_identity(other)


# -- keys that come and go -----------------------------------------------------------------------------


class Source:
    """Of keys. It may be slow, or dead."""

    def __init__(self) -> None:
        self.keys: bytes | None = key_set(public_jwk("EdDSA"))
        self.looks: list[float] = []
        self.slow = False
        self.mistaken = False

    async def load(self) -> bytes:
        self.looks.append(trio.current_time())
        if self.slow:
            await trio.sleep_forever()
        if self.mistaken:
            raise RuntimeError("a mistake of ours")
        if self.keys is None:
            raise KeysUnavailable("nobody there")
        return self.keys


async def code_of(readers: Identities, token: str) -> str | None:
    try:
        await readers.wait_read(token)
    except IdentityError as error:
        return error.code
    return None


@pytest.fixture
async def looking(autojump_clock: MockClock, nursery: trio.Nursery) -> tuple[Source, Identities]:
    """Keys that are looked for at a source, and what reads tokens with them."""
    source = Source()
    ring = KeyRing(source.load)
    await nursery.start(ring.run)
    return source, identities(ring)


async def test_a_key_that_is_new_is_looked_for_but_not_too_often(
    autojump_clock: MockClock, looking: tuple[Source, Identities]
) -> None:
    source, readers = looking
    began = trio.current_time()
    assert await code_of(readers, signed(algorithm="EdDSA")) is None, "the first look is waited for"
    source.keys = key_set(public_jwk("EdDSA"), public_jwk("EdDSA", 1))
    assert await code_of(readers, signed(algorithm="EdDSA", number=1)) is None
    codes: list[str | None] = []

    async def unknown() -> None:
        codes.append(await code_of(readers, signed(algorithm="ES256")))

    async with trio.open_nursery() as many:
        for _ in range(100):
            many.start_soon(unknown)
    assert codes == ["identity_invalid"] * 100
    assert [at - began for at in source.looks] == [0, key_ring.PAUSE_S, 2 * key_ring.PAUSE_S]
    source.keys = key_set(public_jwk("EdDSA", 1))
    await trio.sleep(key_ring.RENEW_S + 1)
    assert await code_of(readers, signed(algorithm="EdDSA")) == "identity_invalid", (
        "the app has taken it back"
    )


async def test_a_source_that_is_slow_or_dead_leaves_the_keys_as_they_are(
    autojump_clock: MockClock, looking: tuple[Source, Identities]
) -> None:
    source, readers = looking
    assert await code_of(readers, signed(algorithm="EdDSA")) is None
    for broken in ("mistaken", "slow", "dead", "garbage", "empty"):
        source.slow, source.mistaken = broken == "slow", broken == "mistaken"
        source.keys = {"garbage": b"[", "empty": b'{"keys":[]}'}.get(broken)
        began = trio.current_time()
        assert await code_of(readers, signed(algorithm="ES256")) == "identity_unavailable"
        assert trio.current_time() - began <= key_ring.PAUSE_S + key_ring.LOOK_TIMEOUT_S
        assert await code_of(readers, signed("ben", algorithm="EdDSA")) is None
    source.slow = source.mistaken = False
    source.keys = key_set(public_jwk("ES256"))
    assert await code_of(readers, signed(algorithm="ES256")) is None


async def test_a_mistake_after_a_look_is_told_as_of_the_request_that_waited(
    looking: tuple[Source, Identities], caplog: pytest.LogCaptureFixture
) -> None:
    source, readers = looking
    source.keys = key_set(public_jwk("EdDSA"), public_jwk("EdDSA", 1))

    def mistaken(_: object) -> None:
        raise ValueError("a mistake of ours")

    caplog.handler.addFilter(OfRequest())
    with ForRequest("r-1"):
        readers.read(signed(algorithm="EdDSA", number=1), mistaken)
    new = signed(algorithm="EdDSA", number=1)
    assert await code_of(readers, new) is None, "the next one hears all the same"
    [told] = [record for record in caplog.records if record.exc_info]
    assert (told.getMessage(), vars(told)["request_id"]) == ("a mistake in telling of an identity", "r-1")


async def test_no_more_tokens_wait_than_may(autojump_clock: MockClock) -> None:
    ring = KeyRing(Source().load)
    readers = identities(ring)
    told_of: list[Any] = []
    for _ in range(key_ring.WAITING_MAX + 1):
        readers.read(signed(algorithm="EdDSA"), told_of.append)
    assert [each.code for each in told_of] == ["identity_unavailable"]


def test_keys_of_other_kinds_are_passed_over() -> None:
    small = {"kty": "RSA", "kid": "small", "n": "u" * 171, "e": "AQAB"}
    passed = [
        {"kty": "oct", "kid": "o", "k": "AAAA"},
        public_jwk("ES256", kid="enc", use="enc"),
        public_jwk("RS256", kid="other", alg="RS512"),
        {"kty": "EC", "crv": "P-256", "kid": "broken", "x": "!", "y": "!"},
        {"kty": "OKP", "crv": "X25519", "kid": "x", "x": "AAAA"},
        small,
        "no key",
    ]
    found = keys_in(key_set(*passed, public_jwk("EdDSA")))  # type: ignore[arg-type]  # as it may come
    assert list(found) == [("EdDSA 0", "EdDSA")]
    for raw in (b"", b"[]", b"{}", b'{"keys":7}', key_set(*passed), key_set(*[public_jwk("EdDSA")] * 101)):  # type: ignore[arg-type]  # as it may come
        with pytest.raises(KeysUnavailable):
            keys_in(raw)
