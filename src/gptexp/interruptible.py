"""Long calls into native code that Ctrl-C can end (no torch)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.1  # seconds


def interruptible(work: Callable[[Iterator[Any]], T], items: Iterable[Any]) -> T:
    """The result of work(items). Ctrl-C ends the waiting at once, and the work when it asks for its next item.

    Python acts upon signals between its own instructions only, so a native call on the main thread holds them up.
    work must let go of Python's lock for that.
    """
    left, done = threading.Event(), threading.Event()
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(_until(left, items)))
        except BaseException as error:  # raised where the result is waited for
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        while not done.wait(PAUSE):
            pass
    finally:
        left.set()
    if errors:
        raise errors[0]
    return result[0]


def _until(left: threading.Event, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if left.is_set():
            return
        yield item
