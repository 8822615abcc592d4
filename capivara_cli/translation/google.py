"""Google's public translation service, through googletrans: several texts per request, at a rate that it tolerates.

It is not an official interface. It refuses clients that ask too quickly (429), and its replies must be checked. For
any status other than 200, googletrans returns the source as its translation unless told not to.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from capivara_cli import console
from capivara_cli.data.languages import code_for
from capivara_cli.errors import CapivaraError
from capivara_cli.translation.limiter import Limiter
from capivara_cli.translation.options import TranslateOptions
from capivara_cli.translation.translator import Failure, Translator

MAX_CHARACTERS = 5000  # per request, the service's limit
MAX_TEXTS = 100  # per request: if a reply is unusable, this many texts are asked for again
LONG_PAUSE = 2.0  # seconds; a shorter one is not announced

Results = list[tuple[int, str | Failure]]
"""Indices of texts, and their translations."""


class Refused(Exception):
    """A status other than 200."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


@dataclass
class _Request:
    """Texts that are sent together.

    Attributes:
        indices: of the texts.
        failures: how often it failed.
        served_before: how many requests had been served when it was first sent; None before that.
    """

    indices: list[int]
    failures: int = 0
    served_before: int | None = None


class Google(Translator):
    """googletrans with a limited number of simultaneous requests, and one rate for all of them."""

    backend = model = "google"
    saves_each = True

    def __init__(self, options: TranslateOptions, *, ranks: int = 1) -> None:
        """Prepare; nothing is sent yet.

        Args:
            options: `origin`, `google_url`, `concurrency`, `rate`, `retries`, `timeout` and `seed` are used.
            ranks: processes that share the rate.
        """
        self.options = options
        self._origin_code = code_for(options.origin, "google")
        rate = options.rate / ranks
        self.limiter = Limiter(rate, rate, random.Random(options.seed))
        self._served = 0  # requests
        self._failures = 0  # in a row, over all requests
        self._said = 0  # the last try that was announced since a request was served
        self._runner = asyncio.Runner()
        self._client: Any = None

    def check(self, target: str) -> None:
        """See `Translator`."""
        code_for(target, "google")

    def status(self) -> str:
        """See `Translator`."""
        return f"{self.limiter.rate:.2g} requests/s"

    def close(self) -> None:
        """Close the connections and the event loop."""
        if self._client is not None:
            self._runner.run(self._client.client.aclose())
        self._runner.close()

    def translate(self, texts: Sequence[str], target: str, attempt: int = 0) -> Iterator[tuple[int, str | Failure]]:
        """See `Translator`. Texts that were tried before are sent one per request."""
        groups = [[i] for i in range(len(texts))] if attempt else _join(texts)
        results = self._translate(texts, code_for(target, "google"), groups)
        try:
            while True:
                try:
                    yield self._runner.run(anext(results))  # type: ignore[arg-type]
                except StopAsyncIteration:
                    return
        finally:
            self._runner.run(results.aclose())  # type: ignore[attr-defined]

    def _open(self) -> Any:
        """Make the client, inside the event loop that it will run in."""
        from googletrans import Translator as Client
        from httpx import Response, Timeout

        async def check_status(response: Response) -> None:
            if response.status_code != 200:
                raise Refused(response.status_code, _seconds(response.headers.get("retry-after")))

        client = Client(raise_exception=True, timeout=Timeout(self.options.timeout))
        client.client.event_hooks = {"response": [check_status]}
        if self.options.google_url is not None:
            client.service_urls, client.client_type = [self.options.google_url], "gtx"
        return client

    async def _translate(
        self, texts: Sequence[str], code: str, groups: list[list[int]]
    ) -> AsyncIterator[tuple[int, str | Failure]]:
        if self._client is None:
            self._client = self._open()
        waiting: asyncio.Queue[_Request] = asyncio.Queue()
        done: asyncio.Queue[Results | BaseException] = asyncio.Queue()
        for indices in groups:
            waiting.put_nowait(_Request(indices))

        async def work() -> None:
            while True:
                request = await waiting.get()
                try:
                    results, new_requests = await self._send(request, texts, code)
                except Exception as error:
                    done.put_nowait(error)
                    continue
                done.put_nowait(results)
                for new in new_requests:
                    waiting.put_nowait(new)

        workers = [asyncio.create_task(work()) for _ in range(self.options.concurrency)]
        try:
            missing = len(texts)
            while missing:
                results = await done.get()
                if isinstance(results, BaseException):
                    raise results
                missing -= len(results)
                for result in results:
                    yield result
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _send(self, request: _Request, texts: Sequence[str], code: str) -> tuple[Results, list[_Request]]:
        """Send a request; return its results, and the requests to send instead if it failed."""
        from httpx import TransportError

        if request.served_before is None:
            request.served_before = self._served
        await self.limiter.wait()
        joined = "\n".join(texts[i] for i in request.indices)
        try:
            # The service may hang in the middle of a reply. The client's timeout does not notice that: it is for
            # single reads.
            async with asyncio.timeout(2 * self.options.timeout):
                reply = await self._client.translate(joined, dest=code, src=self._origin_code)
        except Refused as error:
            self.limiter.slow_down(error.retry_after)
            return self._after_failure(request, error, is_outage=error.status == 429)
        except (TransportError, TimeoutError) as error:
            if not self._served and _is_unresolved(error):
                host = self.options.google_url or self._client.service_urls[0]
                raise CapivaraError(
                    f"{host} has no address: this machine has no network, or the name is wrong",
                    "--backend nllb translates without a service",
                ) from error
            self.limiter.slow_down(None)
            return self._after_failure(request, error, is_outage=True)
        except Exception as error:  # truncated, HTML, not JSON: googletrans raises nearly anything
            self.limiter.slow_down(None)
            return self._after_failure(request, error, is_outage=False)
        self.limiter.speed_up()
        lines = str(reply.text).split("\n")
        if len(request.indices) == 1:
            lines = [" ".join(lines)]
        elif len(lines) != len(request.indices):  # joined, split or lost: which line belongs to which text is unknown
            return [], [_Request([i]) for i in request.indices]
        self._served += 1
        self._failures = self._said = 0
        return [(i, line.strip()) for i, line in zip(request.indices, lines, strict=True)], []

    def _after_failure(self, request: _Request, error: Exception, *, is_outage: bool) -> tuple[Results, list[_Request]]:
        """Return the final results of a request that failed, and the requests to send instead of it.

        Args:
            is_outage: it failed whatever its texts were (429, no connection); otherwise one of them may be the cause.

        Raises:
            CapivaraError: the service is down.
        """
        request.failures += 1
        self._failures += 1
        reason = f"{type(error).__name__}: {error}".rstrip(": ").removeprefix("Refused: ")
        others_served = self._served > (request.served_before or 0)  # in the meantime
        # Every simultaneous request may fail at once, and the texts of one may fail once more, one by one.
        is_down = self._failures > 2 * (self.options.retries + 1 + self.options.concurrency)
        if request.failures <= self.options.retries and not is_down:
            self._say_retry(reason, request.failures)
            return [], [request]
        if len(request.indices) > 1 and (others_served or not is_outage) and not is_down:
            return [], [_Request([i], served_before=self._served) for i in request.indices]
        if others_served and not is_down:
            return [(request.indices[0], Failure(f"the service fails on it: {reason}", final=True))], []
        raise CapivaraError(
            f"the translation service gives no translations: {reason}, {self._failures} times in a row",
            "progress is saved: run the command again later, or with a lower --rate; or use --backend nllb",
        )

    def _say_retry(self, reason: str, number: int) -> None:
        """Say that a request is sent again, and when; once per try, although several requests may wait for it."""
        seconds = self.limiter.pause()
        if number > max(self._said, 1) or (seconds > LONG_PAUSE and number > self._said):
            self._said = number
            console.say(f"{reason}: trying again in {seconds:.0f} s, {number} of {self.options.retries}")


def _is_unresolved(error: BaseException) -> bool:
    """Return whether a host's name has no address: no network, most likely, which no waiting for a reply mends."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _join(texts: Sequence[str]) -> list[list[int]]:
    """Group the indices of texts by request."""
    groups: list[list[int]] = []
    size = MAX_CHARACTERS + 1
    for i, text in enumerate(texts):
        if size + len(text) + 1 > MAX_CHARACTERS or len(groups[-1]) == MAX_TEXTS:
            groups.append([])
            size = 0
        groups[-1].append(i)
        size += len(text) + 1
    return groups


def _seconds(retry_after: str | None) -> float | None:
    """Parse Retry-After; None for a date, which the service does not send."""
    try:
        return max(float(retry_after), 0.0) if retry_after is not None else None
    except ValueError:
        return None
