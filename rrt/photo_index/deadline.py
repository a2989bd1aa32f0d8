"""A deadline for each request to the page: an answer that takes longer is given up, and the client is told so."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


def is_given_up() -> bool:
    """Whether the request that this thread works for has passed its deadline, so that nobody waits for its answer."""
    event = _given_up.get()
    return event is not None and event.is_set()


class Deadline:
    """Gives each request ``seconds``, from its head until its answer begins; after that the application ``late``
    answers."""

    def __init__(self, app: ASGIApp, seconds: float, late: ASGIApp):
        self.app, self.seconds, self.late = app, seconds, late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        over, begun = threading.Event(), asyncio.Event()

        async def send_in_time(message: Message) -> None:
            if not over.is_set():
                begun.set()
                await send(message)

        token = _given_up.set(over)
        # Not asyncio.wait_for(): it would cancel the request and then wait for its thread, which cannot be stopped.
        work, answered = (
            asyncio.ensure_future(self.app(scope, receive, send_in_time)),
            asyncio.ensure_future(begun.wait()),
        )
        _given_up.reset(token)
        try:
            await asyncio.wait({work, answered}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
            if work.done() or begun.is_set():
                await work
                return
        except asyncio.CancelledError:
            work.cancel()
            raise
        finally:
            answered.cancel()
        over.set()
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio reports its error
        await self.late(scope, receive, send)
