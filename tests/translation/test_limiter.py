"""The rate at which a service is asked."""

from __future__ import annotations

import contextlib
import random

import pytest

from capivara_cli.translation.limiter import Limiter


def test_the_rate_falls_when_refused_and_rises_when_served() -> None:
    limiter = Limiter(8.0, 8.0, random.Random(0))
    limiter.slow_down(None)
    limiter.slow_down(0.0)
    assert limiter.rate == 2.0
    for _ in range(10):
        limiter.speed_up()
    assert 2.0 < limiter.rate < 8.0
    for _ in range(100):
        limiter.speed_up()
    assert limiter.rate == 8.0


class Clock:
    """A clock that only sleeping moves, in place of the modules `time` and `asyncio` of the limiter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("capivara_cli.translation.limiter.time.monotonic", lambda: self.now)
        monkeypatch.setattr("capivara_cli.translation.limiter.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, limiter: Limiter) -> float:
        """Return how long a request has to wait."""
        before = self.now
        with contextlib.suppress(StopIteration):
            limiter.wait().send(None)
        return self.now - before


def test_requests_are_sent_at_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, limiter = Clock(monkeypatch), Limiter(4.0, 4.0, random.Random(0))
    assert [clock.wait(limiter) for _ in range(3)] == [0, 0.25, 0.25]
    clock.now += 0.1
    assert clock.wait(limiter) == pytest.approx(0.15)
    clock.now += 9
    assert [clock.wait(limiter) for _ in range(2)] == [0, 0.25]  # what was not sent is not made up for


def test_without_retry_after_each_pause_is_twice_as_long_for_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, limiter = Clock(monkeypatch), Limiter(1000.0, 1000.0, random.Random(0))
    for refusals in range(1, 9):
        longest = 2 ** min(refusals - 1, 5)
        limiter.slow_down(None)
        assert longest / 2 <= clock.wait(limiter) <= longest  # whichever request is next
    limiter.speed_up()
    limiter.slow_down(None)
    assert clock.wait(limiter) <= 1  # the refusals are not in a row any more


@pytest.mark.parametrize(("retry_after", "pause"), [(0.0, 0.0), (7.0, 7.0), (500.0, 120.0)])
def test_a_pause_is_as_long_as_the_service_says_up_to_two_minutes(
    retry_after: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, limiter = Clock(monkeypatch), Limiter(1000.0, 1000.0, random.Random(0))
    limiter.slow_down(retry_after)
    assert clock.wait(limiter) == pytest.approx(pause)
    limiter.slow_down(60)
    limiter.slow_down(0)  # another request's refusal does not shorten the pause
    assert clock.wait(limiter) == pytest.approx(60, abs=0.1)


def test_the_rate_never_falls_below_one_request_in_ten_seconds() -> None:
    limiter = Limiter(8.0, 8.0, random.Random(0))
    for _ in range(20):
        limiter.slow_down(0)
    assert limiter.rate == 0.1
