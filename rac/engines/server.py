"""Requests to an OpenAI-compatible server: retries, and errors in one line."""

import email.utils
import logging
import random
import time
from threading import Event
from typing import Any

import httpx

from rac.engines.reply import Passing, Reply, read_reply, server_message
from rac.errors import UserError, first_line

logger = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
SHOWN_CHARACTERS = 300


class Stopped(Exception):
    """The evaluation ended while a request waited to be sent again."""


class Server:
    """One server, safe to use from several threads.

    Args:
        base_url: up to `/v1`.
        key: sent as a bearer token, never shown.
        timeout_s: seconds without a byte before a request counts as lost.
        retries: how often a request is sent again after an error that may pass.
        backoff_s: seconds before the second try; they double, with jitter, up to a minute.

    Raises:
        UserError: the address is not one.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        connections: int = 1,
        timeout_s: float = 600.0,
        retries: int = 6,
        backoff_s: float = 1.0,
    ) -> None:
        try:
            url = httpx.URL(base_url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise UserError(f"--base-url {base_url}: {first_line(error)}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise UserError(f"--base-url {base_url}: expected http://host:port/v1")
        self.shown = str(url.copy_with(username=None, password=None))
        self.key, self.retries, self.backoff_s = key, retries, backoff_s
        self._options = {
            "base_url": url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 30.0), pool=None),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=connections),
        }
        self.client = httpx.Client(**self._options)

    def models(self) -> list[str]:
        """The names that the server answers to; none where it does not say.

        Raises:
            UserError: it cannot be reached, refuses the key, or is not at this address.
        """
        try:
            response = self.client.get("/models")
        except httpx.RequestError as error:
            raise UserError(
                f"no server answers at {self.shown} ({_reason(error)}); start it, or correct "
                "--base-url"
            ) from error
        if response.status_code in (401, 403):
            raise UserError(
                f"{self.shown} refuses the key ({self._explain(response)}); set RAC_API_KEY"
            )
        if response.status_code == 404:
            raise UserError(f"{self.shown} has no /models; should --base-url end in /v1?")
        try:
            return [str(entry["id"]) for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return []

    def ask(self, path: str, body: dict[str, Any], halt: Event | None = None) -> Reply:
        """Send one request until it is answered.

        Raises:
            UserError: it was refused, or the retries are used up.
            Stopped: `halt` was set before it was sent again.
        """
        halt = halt or Event()
        for attempt in range(self.retries + 1):
            try:
                return self._ask_once(path, body)
            except Passing as error:
                failure = error
            if attempt < self.retries:
                wait_s = min(LONGEST_BACKOFF_S, self.backoff_s * 2**attempt)
                wait_s = max(failure.after_s or 0.0, wait_s * random.uniform(0.5, 1.5))
                logger.debug("%s: %s; again in %.1f s", self.shown, failure, wait_s)
                if halt.wait(wait_s):
                    raise Stopped
        raise UserError(f"{self.shown}: {failure}, after {self.retries + 1} tries")

    def _ask_once(self, path: str, body: dict[str, Any]) -> Reply:
        try:
            with self.client.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    response.read()
                    self._refuse(response)
                return read_reply(response)
        except httpx.RequestError as error:
            raise Passing(_reason(error)) from error

    def _refuse(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (408, 429) or status >= 500:
            raise Passing(self._explain(response), _retry_after(response.headers))
        raise UserError(f"{self.shown} refused a request: {self._explain(response)}")

    def _explain(self, response: httpx.Response) -> str:
        """Status and the server's own words, without the key."""
        try:
            message = server_message(response.json())
        except ValueError:
            message = response.text
        message = message.replace(self.key, "***") if self.key else message
        message = " ".join(message.split())[:SHOWN_CHARACTERS] or response.reason_phrase
        return f"{response.status_code} {message}"

    def drop(self) -> None:
        """Give up all requests in flight; others may follow."""
        old, self.client = self.client, httpx.Client(**self._options)
        old.close()


def _reason(error: httpx.RequestError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"timed out ({type(error).__name__})"
    return first_line(error)


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; at most ten minutes."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
