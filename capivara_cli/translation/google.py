"""Google's public translation service, through googletrans: several texts a request, and never faster than it bears.

It is nobody's official interface: it refuses (429) who asks too quickly, and its replies must be looked at before they
are believed. googletrans passes the source off as its translation on any other status than 200 unless told not to.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from capivara_cli.data.languages import code_for
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.translator import Failure, Translator

MOST_CHARACTERS = 5000  # of a request, as the service has it
MOST_TEXTS = 100  # of a request: what a bad reply makes worth asking for again
SLOWEST, FASTEST = 0.1, 50.0  # requests a second
LONGEST_WAIT = 120.0  # seconds, of one pause; longer ones are for the person to decide


class Refused(Exception):
    """A status other than 200."""

    def __init__(self, status: int, after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.after = after


@dataclass
class Limiter:
    """One rate for all requests: halved when the service refuses, up again slowly.

    Attributes:
        rate: requests a second now.
        most: what it goes up to.
    """

    rate: float
    most: float
    random: random.Random
    refusals: int = 0
    _next: float = 0.0

    async def turn(self) -> None:
        """Wait until the next request may go out."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + 1 / self.rate
        await asyncio.sleep(start - now)

    def refused(self, after: float | None) -> None:
        """Pause all, for as long as the service says or twice as long as the last time, and go on at half the rate."""
        self.refusals += 1
        self.rate = max(self.rate / 2, SLOWEST)
        pause = after if after is not None else 2.0 ** min(self.refusals - 1, 5) * self.random.uniform(0.5, 1.0)
        self._next = max(self._next, time.monotonic() + min(pause, LONGEST_WAIT))

    def served(self) -> None:
        """A little faster again."""
        self.refusals = 0
        self.rate = min(self.rate * 1.05, self.most)


@dataclass
class _Job:
    """Texts of one request, and how often it failed."""

    numbers: list[int]
    failures: int = 0
    served_before: int = field(default=-1)


class Google(Translator):
    """googletrans with bounded concurrency and one rate for all."""

    backend = model = "google"
    costly = True

    def __init__(
        self,
        origin: str,
        *,
        url: str | None = None,
        concurrency: int = 4,
        rate: float = 5.0,
        retries: int = 6,
        timeout: float = 30.0,
        seed: int = 0,
    ) -> None:
        """Ask nothing yet.

        Args:
            origin: BCP-47 code of the texts' language.
            url: `HOST[:PORT]` of the service; None is Google's own.
            concurrency: requests under way at once.
            rate: requests a second, at most.
            retries: how often a request that failed is made again.
            timeout: seconds to wait for a reply.
            seed: of the jitter of pauses.
        """
        self.origin = origin
        self._origin_code = code_for(origin, "google")
        self.url, self.concurrency, self.retries, self.timeout = url, concurrency, retries, timeout
        self.limiter = Limiter(rate, rate, random.Random(seed))
        self.requests = 0
        self._served = 0
        self._failures = 0  # in a row, of all requests
        self._runner = asyncio.Runner()
        self._client: Any = None

    def check(self, target: str) -> None:
        """Whether the table has it."""
        code_for(target, "google")

    def status(self) -> str:
        """The present rate."""
        return f"{self.limiter.rate:.2g} requests/s"

    def close(self) -> None:
        """End the connections and the loop."""
        if self._client is not None:
            self._runner.run(self._client.client.aclose())
        self._runner.close()

    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """See `Translator`; what failed before is asked for by itself."""
        results = self._translate(texts, code_for(target, "google"), alone=attempt > 0)
        try:
            while True:
                try:
                    yield self._runner.run(anext(results))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(results.aclose())  # type: ignore[attr-defined]

    def _open(self) -> Any:
        """The real client, made inside the loop that it will run in."""
        from googletrans import Translator as Client
        from httpx import Response, Timeout

        async def look(response: Response) -> None:
            self.requests += 1
            if response.status_code != 200:
                raise Refused(response.status_code, _seconds(response.headers.get("retry-after")))

        client = Client(raise_exception=True, timeout=Timeout(self.timeout))
        client.client.event_hooks = {"response": [look]}
        if self.url is not None:
            client.service_urls, client.client_type = [self.url], "gtx"
        return client

    async def _translate(
        self, texts: Sequence[str], code: str, *, alone: bool
    ) -> AsyncIterator[tuple[int, str | Failure]]:
        if self._client is None:
            self._client = self._open()
        waiting: asyncio.Queue[_Job] = asyncio.Queue()
        done: asyncio.Queue[list[tuple[int, str | Failure]] | BaseException] = asyncio.Queue()
        for numbers in [[i] for i in range(len(texts))] if alone else _joined(texts):
            waiting.put_nowait(_Job(numbers))

        async def work() -> None:
            while True:
                job = await waiting.get()
                try:
                    for again in await self._ask(job, texts, code, done):
                        waiting.put_nowait(again)
                except Exception as error:
                    done.put_nowait(error)

        workers = [asyncio.create_task(work()) for _ in range(self.concurrency)]
        try:
            left = len(texts)
            while left:
                results = await done.get()
                if isinstance(results, BaseException):
                    raise results
                left -= len(results)
                for result in results:
                    yield result
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _ask(self, job: _Job, texts: Sequence[str], code: str, done: asyncio.Queue[Any]) -> list[_Job]:
        """Make one request; gives the requests to be made instead when it failed."""
        if job.served_before < 0:
            job.served_before = self._served
        await self.limiter.turn()
        from httpx import TransportError

        joined = "\n".join(texts[i] for i in job.numbers)
        try:
            # The service may hang in the middle of a reply, which a timeout of single reads does not see.
            async with asyncio.timeout(2 * self.timeout):
                reply = await self._client.translate(joined, dest=code, src=self._origin_code)
        except Refused as error:
            self.limiter.refused(error.after)
            return self._again(job, done, error, of_service=error.status == 429)
        except (TransportError, TimeoutError) as error:
            self.limiter.refused(None)
            return self._again(job, done, error, of_service=True)
        except Exception as error:  # cut short, HTML, no JSON: googletrans raises nearly anything
            self.limiter.refused(None)
            return self._again(job, done, error, of_service=False)
        self.limiter.served()
        parts = str(reply.text).split("\n")
        if len(parts) != len(job.numbers):  # lines were joined, split or lost: nobody knows which is whose
            if len(job.numbers) == 1:
                parts = [" ".join(parts)]
            else:
                return [_Job([i]) for i in job.numbers]
        self._served += 1
        self._failures = 0
        done.put_nowait([(i, part.strip()) for i, part in zip(job.numbers, parts, strict=True)])
        return []

    def _again(self, job: _Job, done: asyncio.Queue[Any], error: Exception, *, of_service: bool) -> list[_Job]:
        """What to ask instead of a request that failed.

        `of_service`: it failed whatever the texts were (429, no connection), and not maybe for one of them.
        """
        job.failures += 1
        self._failures += 1
        reason = f"{type(error).__name__}: {error}".rstrip(": ").removeprefix("Refused: ")
        others = self._served > job.served_before  # went through meanwhile
        # Each request under way may fail at once, and so may, once more, the texts of a request by themselves.
        service_is_out = self._failures > 2 * (self.retries + 1 + self.concurrency)
        if job.failures <= self.retries and not service_is_out:
            return [job]
        if len(job.numbers) > 1 and (others or not of_service) and not service_is_out:
            return [_Job([i], served_before=self._served) for i in job.numbers]
        if others and not service_is_out:
            done.put_nowait([(job.numbers[0], Failure(f"the service fails on it: {reason}", final=True))])
            return []
        raise CapivaraError(
            f"the translation service gives no translations: {reason}, {self._failures} times in a row",
            "what is done is kept: the same line goes on, later or with a lower --rate; or --backend nllb",
        )


def _joined(texts: Sequence[str]) -> list[list[int]]:
    """Numbers of the texts that go into one request."""
    groups: list[list[int]] = []
    size = MOST_CHARACTERS + 1
    for i, text in enumerate(texts):
        if size + len(text) + 1 > MOST_CHARACTERS or len(groups[-1]) == MOST_TEXTS:
            groups.append([])
            size = 0
        groups[-1].append(i)
        size += len(text) + 1
    return groups


def _seconds(after: str | None) -> float | None:
    """Retry-After in seconds; a date, which the service does not send, is passed over."""
    try:
        return max(float(after), 0.0) if after is not None else None
    except ValueError:
        return None
