"""Token buckets and what is built of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.actors.token_bucket import TokenBucket
from server.security.limits import ArrivalRate, Attempts, ConnectionCount


def test_a_bucket_lets_the_burst_through_and_then_the_rate() -> None:
    bucket = TokenBucket(rate_per_s=20, burst=60)
    assert sum(bucket.take(1_000) for _ in range(100)) == 60
    assert not bucket.take(1_049)
    assert bucket.take(1_050)
    assert not bucket.take(1_050)
    assert sum(bucket.take(2_050) for _ in range(100)) == 20
    assert sum(bucket.take(1_000_000) for _ in range(100)) == 60


def test_empty_tells_what_take_would_say_and_takes_nothing() -> None:
    bucket = TokenBucket(rate_per_s=1, burst=2)
    assert not bucket.empty(0)
    assert not bucket.empty(0)
    assert bucket.take(0)
    assert not bucket.empty(0)
    assert bucket.take(0)
    assert bucket.empty(0)
    assert bucket.empty(999)
    assert not bucket.empty(1_000)


@given(
    rate=st.integers(1, 100),
    burst=st.integers(1, 50),
    steps=st.lists(st.integers(0, 500), min_size=1, max_size=200),
)
def test_a_bucket_never_lets_more_through_than_burst_and_rate_allow(
    rate: int, burst: int, steps: list[int]
) -> None:
    bucket = TokenBucket(rate, burst)
    start = now = 1_800_000_000_000
    taken = 0
    for step in steps:
        now += step
        empty = bucket.empty(now)
        allowed = bucket.take(now)
        assert allowed is not empty
        taken += allowed
        assert taken <= burst + rate * (now - start) / 1000 + 1e-6


GUESSER = "192.0.2.7"


def judged(attempts: Attempts, address: str, codes: Iterable[str], now_ms: int) -> int:
    """How many of these wrong codes, tried all at once, are looked at at once."""
    tries = [attempts.enter(address, code, now_ms) for code in codes]
    at_once = [each for each in tries if each is not None and not each.wait_ms]
    for each in tries:
        if each is not None:
            each.wrong(now_ms)
    return len(at_once)


def test_a_thousand_tries_at_once_are_no_more_than_in_a_row() -> None:
    attempts = Attempts(per_min=30)
    assert judged(attempts, GUESSER, (f"{n:06}" for n in range(600)), 5_000) == 30
    assert judged(attempts, GUESSER, (f"{n:06}" for n in range(600, 1_200)), 7_000) == 0
    assert judged(attempts, "192.0.2.8", ["000000"], 7_000) == 1


def test_in_the_long_run_a_guesser_hears_of_as_many_codes_as_one_may_try() -> None:
    attempts = Attempts(per_min=30)
    codes = (f"{n:06}" for n in itertools.count())
    told: list[float] = []
    for second in range(600):
        for code in itertools.islice(codes, 100):
            entered = attempts.enter(GUESSER, code, 1000 * second)
            if entered is not None:
                told.append(second + entered.wait_ms / 1000)
                entered.wrong(1000 * second)
    assert len([at for at in told if at < 600]) <= 30 + 600 * 30 / 60
    assert max(told) < 600 + 8.001


def test_a_try_that_waits_has_its_turn_when_the_bucket_has_filled_so_far() -> None:
    attempts = Attempts(per_min=60, wait_max_ms=2_500)
    assert judged(attempts, GUESSER, (f"{n:06}" for n in range(60)), 0) == 60
    waiting = [attempts.enter(GUESSER, f"7{n:05}", 0) for n in range(4)]
    assert [each and each.wait_ms for each in waiting] == [1_000, 2_000, None, None]


def test_a_good_code_costs_nothing_and_is_no_guess_from_then_on() -> None:
    attempts = Attempts(per_min=1)
    entered = attempts.enter(GUESSER, "123456", 0)
    assert entered is not None
    entered.good()
    assert judged(attempts, GUESSER, ["000001", "000002"], 0) == 1
    for _ in range(1_000):
        again = attempts.enter(GUESSER, "123456", 0)
        assert again is not None
        assert not again.wait_ms
        again.good()


def test_a_class_that_comes_in_all_at_once_is_one_try() -> None:
    attempts = Attempts(per_min=2)
    tries = [attempts.enter("192.0.2.7", "123456", 0) for _ in range(600)]
    for each in tries:
        assert each is not None
        assert not each.wait_ms
        each.good()
    assert judged(attempts, "192.0.2.7", ["000001", "000002"], 0) == 2


def test_the_same_wrong_code_is_a_guess_again_once_it_was_answered() -> None:
    attempts = Attempts(per_min=3)
    for _ in range(3):
        assert judged(attempts, GUESSER, ["000001", "000001"], 0) == 2
    assert judged(attempts, GUESSER, ["000001"], 0) == 0


def test_a_code_that_is_good_no_longer_is_a_guess_like_any_other() -> None:
    attempts = Attempts(per_min=1)
    attempts.know(GUESSER, "123456")
    assert judged(attempts, GUESSER, ["123456"], 0) == 1
    assert judged(attempts, GUESSER, ["123456"], 0) == 0


def test_a_try_without_a_look_up_is_not_charged() -> None:
    attempts = Attempts(per_min=1)
    for _ in range(5):
        entered = attempts.enter(GUESSER, "123456", 0)
        assert entered is not None
        assert not entered.wait_ms
        entered.unjudged()


def test_what_was_judged_already_counts_too() -> None:
    attempts = Attempts(per_min=2)
    assert [attempts.charge(GUESSER, 0) for _ in range(3)] == [True, True, False]
    assert judged(attempts, GUESSER, ["000001"], 0) == 0


def test_addresses_of_one_ipv6_network_count_together() -> None:
    attempts = Attempts(per_min=2)
    assert judged(attempts, "2001:db8:1:2::1", ["000001"], 0) == 1
    assert judged(attempts, "2001:db8:1:2:ffff::9", ["000002"], 0) == 1
    assert judged(attempts, "2001:db8:1:2::abcd", ["000003"], 0) == 0
    assert judged(attempts, "2001:db8:1:3::1", ["000004"], 0) == 1


def test_an_ipv4_address_is_the_same_in_ipv6_clothes() -> None:
    attempts = Attempts(per_min=1)
    assert judged(attempts, "::ffff:192.0.2.7", ["000001"], 0) == 1
    assert judged(attempts, "192.0.2.7", ["000002"], 0) == 0


def test_attempts_remember_a_bounded_number_of_addresses_and_codes() -> None:
    attempts = Attempts(per_min=1, addresses_max=100, known_max=50)
    for n in range(10_000):
        address = f"10.0.{n // 256}.{n % 256}"
        assert judged(attempts, address, ["000001"], 0) == 1
        attempts.know(address, "123456")
    assert len(attempts) == 150
    assert judged(attempts, "10.0.39.15", ["000001"], 0) == 0
    assert judged(attempts, "10.0.0.0", ["000001"], 0) == 1


def test_what_is_no_address_counts_by_its_text() -> None:
    attempts = Attempts(per_min=1)
    assert judged(attempts, "unix:", ["000001", "000002"], 0) == 1


def test_connections_are_counted_by_address() -> None:
    count = ConnectionCount(2)
    assert [count.enter("203.0.113.1", 0.0) for _ in range(3)] == [True, True, False]
    assert count.enter("203.0.113.2", 0.0)
    assert [count.enter(f"2001:db8::{n}", 0.0) for n in (1, 2, 3)] == [True, True, False]
    count.leave("203.0.113.1")
    assert count.enter("203.0.113.1", 0.0)
    for address in ("203.0.113.1", "203.0.113.1", "203.0.113.2", "2001:db8::9", "2001:db8::9"):
        count.leave(address)
    assert len(count) == 0


def test_a_few_beyond_the_limit_are_counted_to_be_told() -> None:
    count = ConnectionCount(1)
    assert count.enter("203.0.113.1", 0.0)
    assert not count.enter("203.0.113.1", 0.0)
    assert [count.enter("203.0.113.1", 0.0, beyond=2) for _ in range(3)] == [True, True, False]
    for _ in range(3):
        count.leave("203.0.113.1")
    assert len(count) == 0


def test_an_address_comes_anew_at_a_rate_though_it_has_left() -> None:
    arrivals = ArrivalRate(per_s=2, burst=3, addresses_max=10)
    assert [arrivals.take("203.0.113.1", 0.0) for _ in range(4)] == [True, True, True, False]
    assert arrivals.take("203.0.113.2", 0.0)
    assert arrivals.take("203.0.113.1", 0.5)
    assert not arrivals.take("203.0.113.1", 0.5)


def test_several_tokens_are_taken_whole_or_not_at_all() -> None:
    bucket = TokenBucket(1, 5)
    assert bucket.take(0, 3)
    assert not bucket.take(0, 3)
    assert bucket.take(0, 2)


def test_a_crowded_address_is_told_of_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    count = ConnectionCount(1)
    for now_s in (0.0, 1.0, 2.0, 11.0, 12.0, 22.0):
        count.enter("203.0.113.1", now_s)
    assert len(caplog.records) == 3
    assert "proxy_hops" in caplog.records[0].getMessage()
