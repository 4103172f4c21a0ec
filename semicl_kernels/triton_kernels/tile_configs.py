"""The sizes of the tiles: by architecture, pass, planes and channels, with the reason beside each entry.

A tile must fit with its pipeline in the shared memory of a multiprocessor, and its sums in the registers of its warps.
The entries were chosen by those two budgets and by what the compiler made of them; an entry that was chosen by time on
a GPU says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MIN_BLOCK_N = 16  # what a tensor core multiplies


@dataclass(frozen=True)
class Tile:
    """Rows of an M tile (``block_m``) and of an N tile (``block_n``), warps of a program and stages of its pipeline.

    Where rows are too long to stay, ``width`` channels are taken at a time and the gradient of ``out`` channels is one
    program's; 0 is all of them.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int
    width: int = 0
    out: int = 0

    def halved(self) -> Tile:
        """Return the tile for the gradient without a fixed maximum and mutual ranges.

        Each pair then takes two exponentials and two masks; half an N tile leaves registers for them.
        """
        return replace(self, block_n=max(MIN_BLOCK_N, self.block_n // 2))


Table = dict[tuple[str, int], dict[int, Tile]]  # (pass, planes) -> most channels, padded -> tile

# Hopper: 228 KiB of shared memory, 65536 registers, WGMMA from 64 rows a warp group. Programs of one warp group: two of
# them share a multiprocessor, so that one's exponentials run beside another's products; of two where one has not the
# registers, alone on a multiprocessor. Of the sizes that Triton 3.6 and 3.9 compile without local memory these are the
# largest; none has been timed yet. Sums of 64 rows would ask 64 bytes a clock and multiprocessor of the L2 cache, which
# gives some 24; of 128 rows, 32.
HOPPER: Table = {
    ("sums", 1): {128: Tile(128, 64, 4, 2), 256: Tile(128, 64, 8, 2), 512: Tile(64, 64, 4, 2, width=64)},
    ("sums", 2): {64: Tile(64, 64, 4, 2), 128: Tile(64, 64, 4, 2, width=64), 512: Tile(64, 64, 4, 2, width=32)},
    ("sums", 3): {64: Tile(64, 64, 4, 2), 128: Tile(64, 64, 8, 2, width=64), 512: Tile(64, 64, 8, 2, width=32)},
    # 64 rows of 256 channels would take one warp group 128 registers a thread for the gradient alone. Two groups have
    # them; in two parts of the channels, a pair would take 768 products and not 512.
    ("gradient", 1): {128: Tile(64, 64, 4, 3), 256: Tile(64, 64, 8, 2), 512: Tile(64, 64, 8, 2, width=64, out=256)},
    ("gradient", 2): {64: Tile(64, 64, 4, 2), 128: Tile(64, 32, 8, 2), 512: Tile(64, 32, 4, 2, width=32, out=64)},
    ("gradient", 3): {64: Tile(64, 32, 4, 2), 128: Tile(64, 16, 8, 2), 512: Tile(64, 32, 4, 2, width=32, out=64)},
}
# As much shared memory as Hopper, and registers for 64 channels at a time; until one has been measured.
BLACKWELL: Table = HOPPER | {("gradient", 1): {128: Tile(64, 64, 4, 3), 512: Tile(64, 64, 4, 2, width=64, out=128)}}
# Ampere, Ada and sm_120: sizes that fit the 99 KiB of the smaller chips.
AMPERE: Table = {
    ("sums", 1): {128: Tile(64, 64, 4, 2), 512: Tile(64, 64, 4, 2, width=64)},
    ("sums", 2): {128: Tile(64, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=32)},
    ("sums", 3): {64: Tile(64, 32, 4, 2), 128: Tile(32, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=32)},
    ("gradient", 1): {128: Tile(64, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=64, out=128)},
    ("gradient", 2): {64: Tile(64, 32, 4, 2), 128: Tile(32, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=32, out=64)},
    ("gradient", 3): {64: Tile(64, 32, 4, 2), 128: Tile(32, 32, 4, 2), 512: Tile(32, 32, 4, 2, width=32, out=64)},
}
# CDNA 3: 64 KiB of shared memory, 64 threads a warp.
CDNA: Table = {
    ("sums", 1): {128: Tile(64, 64, 4, 2), 512: Tile(64, 64, 4, 2, width=64)},
    ("sums", 2): {128: Tile(32, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=32)},
    ("sums", 3): {64: Tile(32, 32, 4, 2), 128: Tile(32, 32, 4, 1), 512: Tile(64, 32, 4, 2, width=32)},
    ("gradient", 1): {128: Tile(64, 32, 4, 2), 512: Tile(64, 32, 4, 2, width=64, out=128)},
    ("gradient", 2): {64: Tile(64, 32, 4, 2), 128: Tile(32, 32, 4, 1), 512: Tile(64, 32, 4, 1, width=32, out=64)},
    ("gradient", 3): {64: Tile(32, 32, 4, 2), 128: Tile(32, 16, 4, 1), 512: Tile(32, 32, 4, 1, width=32, out=64)},
}
# The interpreter: small, so that small problems have several tiles of every kind; as large as that allows, for its time
# goes by the tile.
INTERPRETER: Table = {
    (name, planes): {64: Tile(64, 64, 4, 1), 512: Tile(64, 64, 4, 1, width=32, out=64)}
    for name in ("sums", "gradient")
    for planes in (1, 2, 3)
}

TABLES: dict[str, Table] = {
    "sm_80": AMPERE,
    "sm_90": HOPPER,
    "sm_100": BLACKWELL,
    "gfx942": CDNA,
    "interpreter": INTERPRETER,
}


def tile(architecture: str, name: str, planes: int, channels: int) -> Tile:
    """Return the tile of a pass: the smallest entry that holds the channels, padded to a power of two.

    ``name`` is "sums" for both forward passes (the online softmax holds the same operands and less beside
    them) or "gradient".
    """
    table = TABLES[architecture][name, planes]
    return next(table[most] for most in sorted(table) if channels <= most)


def key_tile(architecture: str, planes: int, channels: int) -> Tile:
    """Return the tile of the gradient of rows against keys: with half the N tile, since every step has a mask.

    On Ampere and Ada each warp holds numbers of all rows of an M tile, seven a row: beside the sums of more than 64
    channels there are registers for half of the rows.
    """
    found = tile(architecture, "gradient", planes, channels).halved()
    return replace(found, block_m=found.block_m // 2) if TABLES[architecture] is AMPERE and channels > 64 else found


def workers(tile: Tile, programs: int) -> int:
    """Return how many programs of a pass fill a device that ``programs`` of four warps fill: of eight, half as many."""
    return max(1, programs * 4 // tile.warps)
