"""Long native calls that Ctrl-C can interrupt (no torch)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
PAUSE = 0.1  # seconds


def interruptible(work: Callable[[Iterator[Any]], T], items: Iterable[Any]) -> T:
    """Return work(items), where work is a native call that releases the GIL, and let Ctrl-C interrupt it.

    Python handles signals only between its bytecode instructions, so a native call on the main thread delays them.
    """
    feed = _Feed(items)
    done = threading.Event()
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(iter(feed)))
        except BaseException as error:  # re-raised on the calling thread
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
    """An iterator that stops delivering items after `stop`."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._stopped = threading.Event()
        self.quiet = threading.Event()  # the thread executes no more Python code

    def stop(self) -> None:
        """Wait until the thread executes no more Python code, which would abort the process at exit."""
        self._stopped.set()
        self.quiet.wait()

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            if self._stopped.is_set():
                self.quiet.set()
                threading.Event().wait()  # for ever: after an end of the items the call would process them
            yield item
        self.quiet.set()
