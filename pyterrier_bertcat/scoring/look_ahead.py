"""Computing the next items of an iterator while the present one is in use."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

_Item = TypeVar("_Item")


def look_ahead(items: Iterable[_Item], *, name: str) -> Generator[_Item]:
    """Yields the items, computing one ahead in a thread of its own.

    No more than two items exist at a time, so memory stays flat. An error in an item is raised where the item would
    have been yielded. A consumer that stops early (an error, Ctrl-C, ``close()``) waits for the item in work, and no
    other is begun.

    Args:
        items: Each is computed by its ``next``, in one thread only.
        name: Of the thread, for debuggers and profilers.
    """
    iterator, end = iter(items), object()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    try:
        following = pool.submit(next, iterator, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, iterator, end)
            yield cast(_Item, item)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
