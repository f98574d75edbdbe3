"""No id twice, in files of any length: what was seen is remembered in 16 bytes for each id, and a few for the newest.

An id is known by its digest of 128 bits. Among n ids any two share one with a probability of about n² / 2^129, which
for the 21 million passages of Wikipedia is 10^-24.
"""

import struct
from bisect import bisect_left
from hashlib import blake2b

import numpy as np

from rag_jax.errors import InputError

NEWEST = 4_096  # digests kept as a set, which is quick to add to and takes ten times the memory
SHARE = 16  # and this part of all digests, so that the number of merges grows with the logarithm of their number


class UniqueIds:
    """Refuses an id that came before, without remembering the 21 million of a Wikipedia that counts 1, 2, 3, …"""

    def __init__(self) -> None:
        self._counted = 0  # "1" … str(_counted) have all been seen
        self._next = "1"
        self._newest: set[bytes] = set()
        self._room = NEWEST  # for so many
        # All older digests, sorted: their first 8 bytes, and their last.
        self._first, self._last = np.empty(0, np.uint64), np.empty(0, np.uint64)
        self._sorted = self._first.data  # gives plain integers, which bisect compares ten times as fast as numpy's

    def add(self, new: str, place: str) -> None:
        """Raises `InputError` if `new` was added before; `place` is the `FILE:LINE` for the message."""
        if new == self._next and not self._newest and not len(self._first):
            self._count()
            return
        digest = blake2b(new.encode(errors="surrogatepass"), digest_size=16).digest()
        if digest in self._newest or self._is_older(digest) or self._was_counted(new):
            raise InputError(f'{place}: the id "{new}" occurs twice; give every line an id of its own')
        if new == self._next:
            self._count()
            return
        self._newest.add(digest)
        if len(self._newest) >= self._room:
            self._merge()

    def _count(self) -> None:
        self._counted += 1
        self._next = str(self._counted + 1)

    def _was_counted(self, new: str) -> bool:
        # No longer than the counter: int() of a very long run of digits is slow, then an error.
        if len(new) > len(self._next) or not (new.isascii() and new.isdecimal()):
            return False
        return new[0] != "0" and int(new) <= self._counted

    def _is_older(self, digest: bytes) -> bool:
        first, last = struct.unpack(">QQ", digest)
        at, end = bisect_left(self._sorted, first), len(self._sorted)
        while at < end and self._sorted[at] == first:
            if self._last[at] == last:
                return True
            at += 1
        return False

    def _merge(self) -> None:
        """Moves the newest digests to their places among the older ones, one half after the other to save memory."""
        new = np.frombuffer(b"".join(sorted(self._newest)), ">u8").astype(np.uint64).reshape(-1, 2)
        self._newest.clear()
        at = np.searchsorted(self._first, new[:, 0])
        self._sorted = memoryview(b"")  # a view of the old half would keep it
        self._first = np.insert(self._first, at, new[:, 0])
        self._last = np.insert(self._last, at, new[:, 1])
        self._sorted = self._first.data
        self._room = max(NEWEST, len(self._first) // SHARE)
