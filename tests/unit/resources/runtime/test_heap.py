"""That a large block which is freed does not change where the next ones lie; the C library says so itself."""

import subprocess
import sys

SHOWN = """
import ctypes
import sys

from resources.runtime import heap

WORDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class Figures(ctypes.Structure):
    _fields_ = [(word, ctypes.c_size_t) for word in WORDS.split()]


library = ctypes.CDLL(None)
library.mallinfo2.restype = Figures
if "--apart" in sys.argv:
    heap.keep_large_blocks_apart()
before = library.mallinfo2().hblkhd
large = bytearray(8 << 20)
del large
kept = [bytes(1 << 20) for _ in range(4)]
print((library.mallinfo2().hblkhd - before) >> 20)
"""


def outside_of_the_heap(*options: str) -> int:
    """Return how many of four MB lie outside the heap, after eight in one block were freed."""
    asked = [sys.executable, "-c", SHOWN, *options]
    return int(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout)


def test_large_blocks_are_apart_also_after_a_larger_one_was_freed() -> None:
    assert outside_of_the_heap() == 0
    assert outside_of_the_heap("--apart") == 4
