"""Token buckets and what is built of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.limits import Attempts, ConnectionCount, JoinRate, TokenBucket


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


def test_an_address_is_blocked_after_its_failures_and_forgiven_with_time() -> None:
    attempts = Attempts(per_min=30)
    for _ in range(30):
        assert not attempts.blocked("192.0.2.7", 5_000)
        attempts.failed("192.0.2.7", 5_000)
    assert attempts.blocked("192.0.2.7", 5_000)
    assert not attempts.blocked("192.0.2.8", 5_000)
    assert attempts.blocked("192.0.2.7", 6_999)
    assert not attempts.blocked("192.0.2.7", 7_000)
    attempts.failed("192.0.2.7", 7_000)
    assert attempts.blocked("192.0.2.7", 7_001)
    assert not attempts.blocked("192.0.2.7", 67_000)


def test_asking_does_not_count_as_a_failure() -> None:
    attempts = Attempts(per_min=1)
    for _ in range(10):
        assert not attempts.blocked("192.0.2.7", 0)
    assert len(attempts) == 0


def test_addresses_of_one_ipv6_network_count_together() -> None:
    attempts = Attempts(per_min=2)
    attempts.failed("2001:db8:1:2::1", 0)
    attempts.failed("2001:db8:1:2:ffff::9", 0)
    assert attempts.blocked("2001:db8:1:2::abcd", 0)
    assert not attempts.blocked("2001:db8:1:3::1", 0)


def test_an_ipv4_address_is_the_same_in_ipv6_clothes() -> None:
    attempts = Attempts(per_min=1)
    attempts.failed("::ffff:192.0.2.7", 0)
    assert attempts.blocked("192.0.2.7", 0)


def test_attempts_remember_a_bounded_number_of_addresses() -> None:
    attempts = Attempts(per_min=1, addresses_max=100)
    for n in range(10_000):
        attempts.failed(f"10.0.{n // 256}.{n % 256}", 0)
    assert len(attempts) == 100
    assert attempts.blocked("10.0.39.15", 0)
    assert not attempts.blocked("10.0.0.0", 0)


def test_what_is_no_address_counts_by_its_text() -> None:
    attempts = Attempts(per_min=1)
    attempts.failed("unix:", 0)
    assert attempts.blocked("unix:", 0)


def test_each_session_has_its_own_rate_of_joins() -> None:
    joins = JoinRate(per_s=3)
    assert [joins.take("111111", 0) for _ in range(4)] == [True, True, True, False]
    assert joins.take("222222", 0)
    assert joins.take("111111", 334)


def test_join_rates_below_one_a_second_still_let_one_in() -> None:
    joins = JoinRate(per_s=0.1)
    assert joins.take("111111", 0)
    assert not joins.take("111111", 9_999)
    assert joins.take("111111", 10_000)


def test_join_rates_remember_a_bounded_number_of_sessions() -> None:
    joins = JoinRate(per_s=1, sessions_max=10)
    for code in range(1_000):
        joins.take(f"{code:06}", 0)
    assert len(joins) == 10


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


def test_a_crowded_address_is_told_of_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    count = ConnectionCount(1)
    for now_s in (0.0, 1.0, 2.0, 11.0, 12.0, 22.0):
        count.enter("203.0.113.1", now_s)
    assert len(caplog.records) == 3
    assert "proxy_hops" in caplog.records[0].getMessage()
