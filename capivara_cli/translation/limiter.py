"""How often a service is asked: one rate for all requests, which adapts to what the service tolerates."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

SLOWEST = 0.1  # requests per second
LONGEST_PAUSE = 120.0  # seconds; whether to wait longer is the user's decision


@dataclass
class Limiter:
    """One rate for all requests: halved when the service refuses, then slowly raised again.

    Attributes:
        rate: requests per second now.
        max_rate: what it is raised to.
        random: source of the pauses' jitter.
        refusals: in a row.
    """

    rate: float
    max_rate: float
    random: random.Random
    refusals: int = 0
    _next: float = 0.0  # time.monotonic() at which the next request may be sent

    async def wait(self) -> None:
        """Wait until the next request may be sent."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + 1 / self.rate
        await asyncio.sleep(start - now)

    def slow_down(self, retry_after: float | None) -> None:
        """Pause all requests, and halve the rate.

        Args:
            retry_after: seconds that the service asks for; by default each pause is twice as long as the one before.
        """
        self.refusals += 1
        self.rate = max(self.rate / 2, SLOWEST)
        pause = 2.0 ** min(self.refusals - 1, 5) * self.random.uniform(0.5, 1.0)
        pause = pause if retry_after is None else retry_after
        self._next = max(self._next, time.monotonic() + min(pause, LONGEST_PAUSE))

    def pause(self) -> float:
        """Return the seconds until the next request may be sent."""
        return max(self._next - time.monotonic(), 0.0)

    def speed_up(self) -> None:
        """Raise the rate a little."""
        self.refusals = 0
        self.rate = min(self.rate * 1.05, self.max_rate)
