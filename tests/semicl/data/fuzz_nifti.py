"""Damaged NIfTI files: each is taken by `semicl prepare`, with the values that it holds, or refused in a line.

    python -m tests.semicl.data.fuzz_nifti --files 2000

Small files, compressed or not, are written with headers of every kind; most are then damaged: bits are flipped, fields
of the header replaced, bytes cut off, added or blanked. What is taken is compared with a reading of its own, by nibabel
and numpy alone; its checksum must be that of its content, and its header tell of all the bytes that it has. Any other
exception than a `SemiclError` that begins with the file's name is a failure.
"""

import argparse
import contextlib
import gzip
import io
import shutil
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import nibabel
import numpy as np
import torch

from semicl.data.cases import Case
from semicl.data.checks import check_files, problems
from semicl.data.grid import Grid
from semicl.data.prepare import prepare
from semicl.data.volumes import check_image, read_image
from semicl.errors import SemiclError
from semicl.evaluation.inference import write_labels
from semicl.models.checkpoint import ModelCard
from semicl.options import PrepareOptions, SourceOptions
from tests.semicl.data.nifti_bytes import OFFSETS, header_of, with_fields

CLASSES = {"one": 1, "two": 2}
PATCH_SIZE = (16, 16)
SOUND = 10
"""Cases of a folder that nothing is done to: a split needs some."""

IMAGE_TYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64)
LABEL_TYPES = (np.uint8, np.int16, np.int32, np.float32, np.float64)
NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 32767, -32768, 2**31 - 1, 1e-38, -1e-3, 0.5, 1e9, 1e20, 3e38, 1e300)
NUMBERS += (float("nan"), float("inf"), float("-inf"))


class Mutator:
    """A source of damaged files, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def affine(self) -> np.ndarray:
        """Voxels of any size below 4 mm, turned and mirrored at will."""
        turn, _ = np.linalg.qr(self._random.normal(size=(3, 3)))
        axes = np.eye(3)[self._random.permutation(3)] * self._random.choice([-1, 1], 3)
        affine = np.eye(4)
        affine[:3, :3] = (turn if self._random.random() < 0.3 else axes) * self._random.uniform(0.3, 4, 3)
        affine[:3, 3] = self._random.uniform(-100, 100, 3)
        return affine

    def pair(self) -> tuple[bytes, bytes]:
        """An image and its label, both sound."""
        affine, shape = self.affine(), tuple(self._random.integers(3, 10, 3))
        kind = nibabel.Nifti1Image if self._random.random() < 0.8 else nibabel.Nifti2Image
        codes = [(1, 1), (1, 0), (0, 1), (2, 4)][self._random.integers(4)]
        unit = str(self._random.choice(["mm", "mm", "unknown", "micron", "meter"]))
        image_type, label_type = self._random.choice(IMAGE_TYPES), self._random.choice(LABEL_TYPES)
        low, high = (-100, 100) if np.issubdtype(image_type, np.signedinteger) else (0, 200)
        image = self._random.integers(low, high, shape).astype(image_type)
        label = self._random.integers(0, 3, shape).astype(label_type)
        pair = []
        for array in (image, label):
            volume = kind(array, affine, dtype=array.dtype)
            volume.set_sform(affine, codes[0])
            volume.set_qform(affine, codes[1], strip_shears=True)
            volume.header.set_xyzt_units(unit)
            pair.append(volume.to_bytes())
        if self._random.random() < 0.2:
            pair[0] = with_fields(pair[0], scl_slope=self._random.uniform(0.01, 100), scl_inter=self._random.normal())
        return pair[0], pair[1]

    def damaged(self, content: bytes) -> bytes:
        """A file's bytes with something wrong."""
        ways = (
            self._flipped,
            self._flipped_in_header,
            self._with_a_field,
            self._with_a_field,
            self._cut,
            self._longer,
            self._blanked,
        )
        return ways[self._random.integers(len(ways))](content)

    def packed(self, content: bytes) -> bytes:
        """Compressed, and now and then damaged after that."""
        packed = gzip.compress(content, 1, mtime=0)
        if self._random.random() < 0.1:
            return self._flipped(packed) if self._random.random() < 0.5 else self._cut(packed)
        return packed

    def chance(self, probability: float) -> bool:
        """Whether something happens that has this probability."""
        return bool(self._random.random() < probability)

    def _flipped(self, content: bytes, length: int | None = None) -> bytes:
        changed = bytearray(content)
        for place in self._random.integers(length or len(content), size=self._random.integers(1, 5)):
            changed[place] ^= 1 << int(self._random.integers(8))
        return bytes(changed)

    def _flipped_in_header(self, content: bytes) -> bytes:
        return self._flipped(content, OFFSETS[type(header_of(content))])

    def _with_a_field(self, content: bytes) -> bytes:
        header = header_of(content)
        name = str(self._random.choice(header.structarr.dtype.names))
        values = np.atleast_1d(header.structarr[name].copy())
        if values.dtype.kind == "S":
            return self._flipped_in_header(content)
        number = np.float64(NUMBERS[self._random.integers(len(NUMBERS))])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.flat[self._random.integers(values.size)] = number.astype(values.dtype)
        return with_fields(content, **{name: values.reshape(header.structarr[name].shape)})

    def _cut(self, content: bytes) -> bytes:
        return content[: self._random.integers(len(content))]

    def _longer(self, content: bytes) -> bytes:
        return content + bytes(self._random.integers(1, 64))

    def _blanked(self, content: bytes) -> bytes:
        begin = int(self._random.integers(len(content)))
        length = int(self._random.integers(1, 64))
        return content[:begin] + bytes(min(length, len(content) - begin)) + content[begin + length :]


def usable_affine(header: nibabel.Nifti1Header) -> np.ndarray:
    """The sform where it can be that of a scan, else what the qform and the voxel size tell.

    The axes must be independent, voxels measure from a nanometer to 10 meters, and lie within 10 km.
    """
    sform = header.get_sform()
    if header["sform_code"] > 0 and np.isfinite(sform).all() and sform[:3, :3].any(axis=0).all():
        in_mm = sform * {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
        lengths = np.sqrt((in_mm[:3, :3] ** 2).sum(axis=0))
        volume = abs(np.dot(np.cross(*(in_mm[:3, :2] / lengths[:2]).T), in_mm[:3, 2] / lengths[2]))
        if volume > 1e-3 and lengths.min() > 1e-6 and lengths.max() < 1e4 and np.abs(in_mm[:3, 3]).max() < 1e7:
            return sform
    header = header.copy()
    header["sform_code"] = 0
    return header.get_best_affine()


def contradiction(path: Path) -> str | None:
    """What a file's own bytes say against taking it; None where there is nothing."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        return f"not whole ({error})"
    volume = nibabel.load(path)
    least, begin = OFFSETS[type(volume.header)] + 4, volume.dataobj.offset
    end = begin + prod(volume.shape) * volume.get_data_dtype().itemsize
    if begin < least or end != len(content):
        return f"of {len(content)} bytes, with voxels from byte {begin} to {end}"
    return None


def expected_array(path: Path) -> np.ndarray:
    """The values of a file along superior, right and anterior."""
    volume = nibabel.load(path)
    array = np.asarray(volume.dataobj)
    array = array.reshape(array.shape[:3])
    orientation = nibabel.orientations.io_orientation(usable_affine(volume.header))
    return nibabel.orientations.apply_orientation(array, orientation).transpose(2, 0, 1)


def expected_image(path: Path) -> np.ndarray:
    """What a network should see of an image: scaled by percentiles, padded in its slices."""
    array = expected_array(path)
    values = array.astype(np.longdouble)
    ordered = np.sort(values, axis=None)
    for share in (0.005, 0.0):
        low, high = (_quantile(ordered, q) for q in (share, 1 - share))
        if low < high:
            return _padded(((np.clip(values, low, high) - low) / (high - low)).astype(np.float64))
    return _padded(np.zeros(array.shape))


def _quantile(ordered: np.ndarray, q: float) -> np.longdouble:
    place = np.longdouble(q) * (len(ordered) - 1)
    below = int(np.floor(place))
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def expected_label(path: Path) -> np.ndarray:
    """The class numbers of a label file, padded in their slices; here they are its values."""
    return _padded(np.round(expected_array(path).astype(np.float64)))


def _padded(array: np.ndarray) -> np.ndarray:
    missing = [max(0, side - length) for side, length in zip(PATCH_SIZE, array.shape[1:], strict=True)]
    return np.pad(array, [(0, 0), *((n // 2, n - n // 2) for n in missing)])


def write_folder(folder: Path, mutator: Mutator, files: int) -> list[Case]:
    """A plain folder of sound cases and of so many with one damaged file."""
    cases = []
    for number in range(SOUND + files):
        pair = list(mutator.pair())
        if number >= SOUND:
            which = int(mutator.chance(0.4))
            pair[which] = mutator.damaged(pair[which])
        paths = []
        for kind, content in zip(("images", "labels"), pair, strict=True):
            packed = mutator.chance(0.5)
            path = folder / kind / f"case{number:04d}.nii{'.gz' if packed else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = gzip.compress(content, 1, mtime=0) if number < SOUND else mutator.packed(content)
            path.write_bytes(sound if packed else content)
            paths.append(path)
        cases.append(Case(f"case{number:04d}", f"case{number:04d}", *paths))
    return cases


def judge(folder: Path, seed: int, files: int) -> Iterator[str]:
    """Failures on a folder of damaged files, which is written, prepared and read back.

    Yields:
        A line for each file that is wrongly taken, or refused in another way than in a line that names it.
    """
    cases = write_folder(folder / "data", Mutator(seed), files)
    source = SourceOptions(str(folder / "data"), folder / "prepared")
    options = PrepareOptions(patch_size=PATCH_SIZE, classes=CLASSES, leave_out_damaged=True)
    try:
        prepared = prepare(source, options)
    except Exception:
        yield f"seed {seed}: prepare failed\n{traceback.format_exc()}"
        return
    taken = {case.name: case for case in prepared.cases}
    card = ModelCard("finetune", (4, 6), prepared.classes, prepared.grid)
    for case in cases:
        try:
            if case.name in taken:
                said = {file: contradiction(file) for file in (case.image, case.label)}
                yield from (f"{file}: is taken, and is {text}" for file, text in said.items() if text is not None)
                yield from _wrong_cache(prepared.image(taken[case.name])[0], expected_image(case.image), case.image)
                yield from _wrong_cache(prepared.label(taken[case.name]), expected_label(case.label), case.label)
                yield from _wrong_way_back(case.image, folder / "back.nii.gz", card)
            else:
                yield from _unclear_refusal(case, card.grid)
        except Exception:
            yield f"seed {seed}, {case.name}:\n{traceback.format_exc()}"


def _wrong_cache(found: np.ndarray, expected: np.ndarray, file: Path) -> Iterator[str]:
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=2e-6):
        yield f"{file}: the cache holds other values"


def _wrong_way_back(image: Path, output: Path, card: ModelCard) -> Iterator[str]:
    """Whether a label file, written as `semicl predict` does, lies where its image is."""
    volume = check_image(image, card.grid)[1]
    gridded = read_image(image, card.grid)
    bright = (gridded.image[0] > 0.5).float()
    numbers = gridded.to_file(torch.stack([1 - bright, bright, torch.zeros_like(bright)])).argmax(0)
    write_labels(output, numbers, card, volume)
    back, expected = nibabel.load(output), expected_image(image)
    if tuple(back.shape) != tuple(volume.shape):
        yield f"{image}: its prediction has another shape"
    if not np.allclose(back.affine, usable_affine(nibabel.load(image).header), rtol=1e-4, atol=1e-4):
        yield f"{image}: its prediction lies elsewhere"
    if int((np.asarray(back.dataobj) == 1).sum()) != int((expected.astype(np.float32) > 0.5).sum()):
        yield f"{image}: its prediction lost voxels"


def _unclear_refusal(case: Case, grid: Grid) -> Iterator[str]:
    found = list(problems(check_files(case), {"background": 0} | CLASSES, grid))
    if not found:
        yield f"{case.name}: left out without a reason"
    for problem in found:
        text = str(problem)
        if "\n" in text or not text.startswith((f"{case.image}: ", f"{case.label}: ")) or not problem.way_out:
            yield f"{case.name}: no line that names the file: {text!r}"
    if any(problem.file == case.image for problem in found):
        try:
            check_image(case.image, grid, channels=1)
            yield f"{case.image}: refused by prepare and taken by predict"
        except SemiclError as error:
            if not str(error).startswith(f"{case.image}: ") or "\n" in str(error):
                yield f"{case.name}: no line that names the file: {error}"


def main() -> int:
    """Judge so many damaged files; print every failure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failures, done, seed = 0, 0, options.seed
    while done < options.files:
        files = min(100, options.files - done)
        folder = Path(tempfile.mkdtemp())
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()) as said,
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("error")
            found = list(judge(folder, seed, files))
        for failure in found:
            print(failure)
        failures, done, seed = failures + len(found), done + files, seed + 1
        print(f"{done} files, {failures} failures", flush=True)
        shutil.rmtree(folder)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
