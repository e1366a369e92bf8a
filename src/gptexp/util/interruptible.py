"""Long calls into native code that Ctrl-C can end (no torch)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.1  # seconds


def interruptible(work: Callable[[Iterator[Any]], T], items: Iterable[Any]) -> T:
    """The result of work(items), where work is a native call that lets go of Python's lock. Ctrl-C ends the waiting.

    Python acts upon signals between its own instructions only, so a native call on the main thread holds them up.
    """
    feed = _Feed(items)
    done = threading.Event()
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(iter(feed)))
        except BaseException as error:  # raised where the result is waited for
            errors.append(error)
        finally:
            feed.quiet.set()
            done.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        while not done.wait(PAUSE):
            pass
    except BaseException:
        feed.stop()
        raise
    if errors:
        raise errors[0]
    return result[0]


class _Feed:
    """Items that stop coming when nobody waits for the result any more."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._stopped = threading.Event()
        self.quiet = threading.Event()  # no more of Python's code runs in that thread

    def stop(self) -> None:
        """Let no more of Python's code run in the thread: while Python ends, that would abort the process."""
        self._stopped.set()
        self.quiet.wait()

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            if self._stopped.is_set():
                self.quiet.set()
                threading.Event().wait()  # for ever: given an end, the call would go on with the items until here
            yield item
        self.quiet.set()
