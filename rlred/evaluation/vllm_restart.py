"""A vLLM server that restarts in the middle of a run: waited for, given the weights again, and asked again.

A server that is back serves the model of its command line. TRL's client asks on by itself, so completions of another
policy would be taken for those of this one; and a push to a server that has lost its end of the weights' way can wait
for ever. vLLM keeps a version with its weights (`/update_weight_version`, `/weight_info`, of the development endpoints;
read in its source): every push of a run sets one of its own, and an answer counts where the version stands before and
after it.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from trl.generation.vllm_client import VLLMClient

from rlred.output import UNANSWERED

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
ATTEMPTS = 3  # at one request: a server that goes again and again is not waited for


class WeightsLost(Exception):
    """The server has other weights than it was given, and gets no others from this process."""


class Server:
    """TRL's connection to a server, and whether the server still holds this run's weights.

    A server that is gone is waited for up to `seconds`. One whose weights have no version (an older vLLM) is asked as
    TRL asks it.
    """

    def __init__(self, client: VLLMClient, seconds: float, device=None):
        self.client, self.seconds, self.device = client, seconds, device
        self.version: str | None = None  # None: no weights were given yet, or the server keeps no version
        self.push: Callable[[], None] | None = None  # gives those that were given last, where this process can

    def give(self, push: Callable[[], None], alone: bool) -> None:
        """Pushes weights, over a new connection where the server has restarted. Of the main process.

        `alone` says that no other process takes part in a push, so that it can be repeated.
        """
        self.push = push if alone else None
        for _ in range(ATTEMPTS):
            try:
                if not self.holds():
                    self._reconnect()
                push()
                return self._mark()
            except Exception as error:
                if not alone or self.version is None or not _unanswered(error):
                    raise
                self._wait()
        raise WeightsLost(f"the vLLM server at {self.client.base_url} goes again and again")

    def read(self) -> None:
        """Takes over the version of the weights that another process has pushed."""
        self.version = self._found()

    def ask(self, question: Callable[[], Any]) -> Any:
        """The answer to a question, by a server that has this run's weights before it and after it.

        Raises `WeightsLost` where the server has restarted and this process cannot push, and `ConnectionError` for one
        that does not come back.
        """
        if self.version is None:
            return question()
        for _ in range(ATTEMPTS):
            try:
                if not self.holds():
                    self._restore()
                found = question()
                if self.holds():
                    return found
            except Exception as error:
                if not _unanswered(error):
                    raise
                self._wait()
        raise WeightsLost(f"the vLLM server at {self.client.base_url} goes again and again")

    def holds(self) -> bool:
        """Whether the server has the weights that it was given last, as far as it can say."""
        return self.version is None or self._found() == self.version

    def _restore(self) -> None:
        if self.push is None:
            raise WeightsLost(
                f"the vLLM server at {self.client.base_url} has restarted, and this process cannot give it the weights "
                "again"
            )
        self._reconnect()
        self.push()
        self._mark()

    def _reconnect(self) -> None:
        logger.warning("the vLLM server at %s has restarted: it is given the weights again", self.client.base_url)
        self.client.close_communicator()
        self.client.init_communicator(device=self.device)

    def _mark(self) -> None:
        version = uuid.uuid4().hex
        told = {"new_version": version}
        response = self.client.session.post(f"{self.client.base_url}/update_weight_version", json=told)
        self.version = version if response.status_code == 200 else None

    def _found(self) -> str | None:
        response = self.client.session.get(f"{self.client.base_url}/weight_info")
        return response.json().get("weight_version") if response.status_code == 200 else None

    def _wait(self) -> None:
        """Until the server answers. TRL's own `check_server` would wait for ever for one that answers with an error."""
        import requests

        logger.warning(
            "the vLLM server at %s does not answer; waiting up to %.0f s (vllm_server_timeout) for it",
            self.client.base_url,
            self.seconds,
        )
        deadline = time.monotonic() + self.seconds
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.client.base_url}/health", timeout=5).status_code == 200:
                    return
            if time.monotonic() >= deadline:
                raise ConnectionError(f"{self.client.base_url} did not come back within {self.seconds:.0f} s")
            time.sleep(POLL_SECONDS)


def _unanswered(error: Exception) -> bool:
    return isinstance(error, ConnectionError) or type(error).__name__ in UNANSWERED
