"""A crash at every moment that matters: the process stops before its n-th lasting change to the disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock


class Crash(BaseException):
    """Nothing after this runs, handlers of `Exception` included."""


def crashes(work: Callable[[], object], restore: Callable[[], None]) -> Iterator[int]:
    """Yields after each crash of `work`: before its first rename, removal or synchronisation, its second, ….

    `restore` puts the disk back before each. What `finally` would clean up stays, as after a power failure.
    """
    number = 0
    while True:
        restore()
        if not _crashed(work, number):
            return
        yield number
        number += 1


def _crashed(work: Callable[[], object], number: int) -> bool:
    """Run `work` up to its lasting change `number`; False where there are fewer."""
    count = -1

    def counted(real: Callable) -> Callable:
        def instead(*arguments, **named):
            nonlocal count
            count += 1
            if count >= number:  # clean-ups on the way out come too late as well
                raise Crash
            return real(*arguments, **named)

        return instead

    places = (os, "replace"), (os, "fsync"), (shutil, "rmtree"), (Path, "unlink"), (os, "link")
    patches = [mock.patch.object(place, name, counted(getattr(place, name))) for place, name in places]
    try:
        for patch in patches:
            patch.start()
        work()
    except Crash:
        return True
    finally:
        for patch in patches:
            patch.stop()
    return False
