"""`semicl prepare`: find cases, check every file, split by subject, and cache what the network will see."""

import json
import math
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semicl.console import Table, conclude, counted, on_main_process, progress_bar, say, show
from semicl.data.cases import DECATHLON, Case, CaseFolder, find_cases, to_rename
from semicl.data.checks import CheckedCase, check_files, problems, unit_note
from semicl.data.classes import BACKGROUND, IGNORED, Merged, absent, held_values, needed_of_classes, nfc, without
from semicl.data.file_states import FileState, changed_files, file_states, place_in
from semicl.data.grid import LARGEST_VALUE, MOST_CLASSES, Grid, resampled_shape, resampled_voxel_size
from semicl.data.nifti_names import NAMED, is_picture, left_out
from semicl.data.prepared import DESCRIPTION, Prepared, read_prepared
from semicl.data.splits import Split, make_split
from semicl.data.subjects import subject_rule
from semicl.errors import SemiclError
from semicl.files import output_folder, remove_partial
from semicl.options import NetworkOptions, PrepareOptions, SourceOptions

PHANTOM = "phantom"

RequireSplits = Callable[[Sequence[Split]], None]

MOST_IN_PICTURES = 30
"""Values of masks that are pictures, beyond which they are taken for smoothed or compressed ones."""

FEW_CLASSES = 20
"""Classes, at most, that are proposed."""

COMMON = 5
"""Label files that hold one value, from which another that one file alone holds is told."""

JUDGED = 3
"""Cases, at most, on which the loss by shrinking, or resampling, is measured."""


def prepare(
    source: SourceOptions, options: PrepareOptions, again: bool = False, require: RequireSplits | None = None
) -> Prepared:
    """Write a prepared folder.

    Args:
        source: the data, and where they are made ready.
        options: how.
        again: whether the folder was made ready so before and its files have changed since.
        require: raises where the splits to be made are not those that are needed.

    Raises:
        SemiclError: no cases, files with something wrong, too few subjects, a split in the folder that a person edited,
            or what `require` raises; nothing has then been written but, where they were asked for, the phantom's
            volumes or the download.
    """
    if not again:
        require_source(source, options)
    _require_no_edited_split(source.prepared, options.repeats)
    folder = _data_folder(source, options, again)
    found = _found(folder, options)
    files = file_states(_files(folder, found), folder, _states_before(source.prepared))
    checked = [check_files(case) for case in progress_bar(found.cases, desc="check files", unit="case")]
    held = _values_held(checked)
    classes, merged = _classes(found, options, held)
    _require_manageable(found.name, classes)
    if found.classes is None and options.classes is None:
        _require_sharp(found, classes)
    grid = Grid(options.patch_size, options.spacing, len(options.patch_size) == 2 and not options.resize)
    unnamed = sorted(held - {*classes.values(), *merged})
    more = options.classes | {f"class {value}": value for value in unnamed} if options.classes and unnamed else {}
    sound = _sound_cases(checked, classes, grid, options.leave_out_damaged, folder, more, merged)
    cases = tuple(each.case for each in sound)
    _require_classes(folder, classes, held)
    _require_held(options.classes or {}, sound)
    counted = (merged.get(value, value) for value in _values_held(sound))
    lacking = absent(held_values(classes, (value for value in counted if value is not None)))
    if lacking:
        say(without(lacking, "means and of what validation picks by"))
    splits = [make_split(cases, options.shares, options.seed, repeat) for repeat in range(options.repeats)]
    if require is not None:
        require(splits)
    grid = replace(grid, voxel_size=_median_voxel_size(sound, grid))
    shapes = {
        each.case: resampled_shape(each.shape, each.affine, grid)
        for each in sound
        if each.shape is not None and each.affine is not None
    }
    prepared = Prepared(
        source.prepared,
        found.name,
        classes,
        grid,
        cases,
        told(source, options),
        folder,
        files,
        _channels(sound),
        merged,
        any(map(grid.cuts, shapes.values())),
    )
    for where in sorted({file.parent for case in cases for file in case.files}):
        others = left_out(where)
        if others is not None:
            say(f"WARNING: {others}")
    _tell_doubts(sound, options.ignore, bool(found.classes or options.classes))
    (source.prepared / DESCRIPTION).unlink(missing_ok=True)
    made = source.prepared / PHANTOM
    remove_partial(*(source.prepared / name for name in ("", "cache", "splits")), made, *made.glob("*"))
    for case in progress_bar(cases, desc="cache", unit="case"):
        prepared.write_arrays(case)
    prepared.write(splits, [_origin(options, repeat) for repeat in range(options.repeats)])
    _tell_patches(grid, shapes)
    _tell_shrinkage(prepared, shapes)
    _conclude(prepared, splits[0], shapes)
    return prepared


def ready(source: SourceOptions, options: PrepareOptions, require: RequireSplits | None = None) -> Prepared:
    """The prepared folder, made where it is not there yet, is to be made anew, or its files have changed.

    Args:
        source: the data, and where they are made ready.
        options: how.
        require: raises, before anything is written, where the splits to be made are not those that are needed.

    Raises:
        SemiclError: what `prepare` and `prepared_before` raise.
    """
    if options.overwrite and on_main_process():  # processes that train with the first come here too
        return prepare(source, options, require=require)
    return prepared_before(source, options) or prepare(
        source, options, again=_told_before(source, options) is not None, require=require
    )


def require_ready(source: SourceOptions, options: PrepareOptions) -> None:
    """Raise where :func:`ready` would, as far as that can be told before any file of a case is opened.

    Raises:
        SemiclError: the data are not there, or the folder for them holds others.
    """
    if options.overwrite or _told_before(source, options) is None:
        require_source(source, options)
    elif options.download is None and source.data not in (None, PHANTOM):
        _found(Path(str(source.data)).expanduser(), options)


def prepared_before(source: SourceOptions, options: PrepareOptions) -> Prepared | None:
    """The prepared folder, where it is there already, was told the same and the files are still those it was made of.

    Files may have been moved, with their folder. Splits that are missing are made.

    Raises:
        SemiclError: it was told something else, is of other data, or is damaged.
    """
    before = _told_before(source, options)
    if before is None:
        return None
    folder = _data_folder(source, options, again=True)
    found = _found(folder, options)
    states = file_states(_files(folder, found), folder, before.states)
    changed = changed_files(before.states, states)
    images = {place_in(folder, file) for case in found.cases for file in (case.image, *case.more)}
    other = states.keys() != before.states.keys() or images.issubset(changed)
    if changed and other and before.states and folder != before.source:
        raise SemiclError(
            f"{source.prepared}: was prepared from {before.source}, and {folder} holds other files ({changed[0]}); "
            "give another --prepared, or --overwrite to replace what is there"
        )
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        say(f"{folder}: changed since it was prepared: {', '.join(changed[:NAMED])}{more}. It is prepared again.")
        return None
    by_name = {case.name: case for case in found.cases}
    cases = tuple(by_name[case.name] for case in before.cases)
    repeats = max(int(before.options["repeats"]), options.repeats)
    told_now = told(source, replace(options, repeats=repeats))
    now = replace(before, cases=cases, options=told_now, source=folder, states=states)
    for number in range(options.repeats):
        if not before.has_split(number):
            now.write_split(number, make_split(cases, options.shares, options.seed, number), _origin(options, number))
    if now != before:
        now.write_description()
    return now


def _told_before(source: SourceOptions, options: PrepareOptions) -> Prepared | None:
    """The prepared folder, where it is there already; no file of a case is opened.

    Raises:
        SemiclError: it was told something else, or is damaged.
    """
    if not (source.prepared / DESCRIPTION).is_file():
        return None
    prepared = read_prepared(source.prepared)
    now, defaults = told(source, options), told(SourceOptions(), PrepareOptions())
    free = {"data", "repeats"}
    if "resize" not in prepared.options and not prepared.grid.sliding_window:
        free.add("resize")  # older versions shrank slices unasked, and whether they did is not noted
    for name, value in now.items():
        before = prepared.options.get(name, defaults[name])  # older folders did not note every option
        if before != value and name not in free:
            raise SemiclError(
                f"{source.prepared}: was prepared with {name} {before}, now {value}; give another --prepared, and "
                "another --output where you train on it; or --overwrite to replace what is there"
            )
    return prepared


def _files(folder: Path, found: CaseFolder) -> list[Path]:
    """The files that are read of the data's folder, those of damaged cases included."""
    files = [file for case in found.cases for file in case.files]
    return [*files, folder / DECATHLON]


def _states_before(folder: Path) -> dict[str, FileState]:
    """The files as an earlier preparation found them; nothing where there is none, or one that is to be made whole."""
    try:
        return read_prepared(folder).states
    except SemiclError:
        return {}


def _origin(options: PrepareOptions, repeat: int) -> dict[str, object]:
    """What a split is made of, beside the cases."""
    return {"seed": options.seed, "repeat": repeat, "shares": options.shares}


def require_source(source: SourceOptions, options: PrepareOptions) -> None:
    """Raise where the data are not there, or the folder for them holds others.

    Raises:
        SemiclError: so it is; or a file or folder that is there has the wrong form.
    """
    if options.download is None and source.data is None:
        raise SemiclError(
            "--data is missing; give a folder of cases, 'phantom', or --download hippocampus, or set SEMICL_DATA"
        )
    _require_named(options.classes, options.ignore)
    inputs: set[Path] = set()
    if options.download is None and source.data not in (None, PHANTOM):
        data = Path(os.path.expanduser(str(source.data)))
        files = [file for case in _found(data, options).cases for file in case.files]
        inputs = {data, *files, *(file.parent for file in files)}
    output_folder(source.prepared, inputs, files=[DESCRIPTION], overwrite=options.overwrite, option="prepared")


def _listed(values: int | list[int]) -> list[int]:
    """The values of a class in label files; the first stands for it."""
    return values if isinstance(values, list) else [values]


def _require_named(classes: Mapping[str, int | list[int]] | None, ignored: Sequence[int]) -> None:
    """Raise where the classes that were given cannot be told apart, or are to be ignored."""
    if classes is None:
        return
    values = [value for each in classes.values() for value in _listed(each)]
    needed = None if all(map(_listed, classes.values())) else "a value for each class"
    needed = needed or needed_of_classes((name, _listed(each)[0]) for name, each in classes.items())
    if len(values) > len(set(values)):
        needed = needed or "a value of its own for each class, each once"
    if not set(values).isdisjoint(ignored):
        needed = needed or f"no value that --ignore {' '.join(map(str, ignored))} takes"
    if not classes or 0 in values:
        needed = "names of one or more values other than 0, which is the background"
    if needed is not None:
        raise SemiclError(f"--classes takes {needed}, got {json.dumps(classes, ensure_ascii=False)}")


def _found(folder: Path, options: PrepareOptions) -> CaseFolder:
    """The cases of a folder."""
    rule = partial(subject_rule, scans_per_subject=options.scans_per_subject, subject_pattern=options.subject_pattern)
    return find_cases(folder, rule)


def told(source: SourceOptions, options: PrepareOptions) -> dict[str, Any]:
    """The options that decide what is prepared, as text."""
    given = {"data": source.data} | asdict(options)
    del given["overwrite"]  # says what becomes of other data
    return {name: str(value) for name, value in given.items()}


def _require_no_edited_split(folder: Path, repeats: int) -> None:
    """Raise where a split would be lost that a person edited."""
    try:
        edited = read_prepared(folder).edited_splits(repeats)
    except SemiclError:  # no folder, or one that is to be made whole
        return
    if edited:
        raise SemiclError(
            f"{edited[0]}: was edited, and preparing the folder again would replace it; give another --prepared, or "
            f"move the edited file{'s' if len(edited) > 1 else ''} away first"
        )


def _data_folder(source: SourceOptions, options: PrepareOptions, again: bool = False) -> Path:
    """The folder of the cases, resolved, so that they are found from other working directories too.

    The phantom is written, unless it is looked at again and still there.
    """
    if options.download is not None:
        from semicl.data.download import download

        return download(options.download, source.prepared.parent).resolve()
    if source.data is None:
        raise SemiclError(
            "--data is missing; give a folder of cases, 'phantom', or --download hippocampus, or set SEMICL_DATA"
        )
    if source.data != PHANTOM:
        return Path(source.data).expanduser().resolve()
    folder = (source.prepared / PHANTOM).resolve()
    there = (folder / DECATHLON).is_file()
    if there and again:
        return folder
    say("PHANTOM: synthetic volumes. What is measured on them says nothing about patients.")
    if there and not options.overwrite and _found(folder, options).name != "Phantom":
        named = source.prepared / PHANTOM
        raise SemiclError(f"{named}: holds other cases; give another --prepared, or --overwrite to replace them")

    from semicl.data.phantom import write_phantom

    write_phantom(folder, options.phantom_subjects, options.seed, options.phantom_channels)
    return folder


def _values_held(checked: Sequence[CheckedCase]) -> set[int]:
    """The values in the label files of the cases that have nothing wrong."""
    return set().union(*(case.values for case in checked if not case.problems))


def _classes(
    found: CaseFolder, options: PrepareOptions, held: set[int]
) -> tuple[dict[str, int], dict[int, int | None]]:
    """Names and values of the classes, the background first, and the class's value of other values that count as it.

    That of values to be ignored is None. A class of the folder's own may be among them.
    """
    ignored: dict[int, int | None] = dict.fromkeys((*found.ignored, *options.ignore))
    if found.classes is not None:
        if options.classes is not None:
            raise SemiclError(f"--classes is for plain folders; {found.name} names its classes itself, so leave it out")
        classes, merged = found.classes, ignored
        classes = {name: value for name, value in classes.items() if value not in ignored}
    elif options.classes is not None:
        listed = {nfc(name): _listed(values) for name, values in options.classes.items()}
        classes = {BACKGROUND: 0} | {name: values[0] for name, values in listed.items()}
        merged = ignored | {value: first for first, *others in listed.values() for value in others}
    else:
        classes, merged = _by_value(held - {*ignored}), ignored
    if options.rest_is_background:
        merged |= dict.fromkeys(sorted(held - {*classes.values(), *merged}), 0)
    return classes, merged


def _by_value(held: set[int]) -> dict[str, int]:
    """Classes named by their values, the background first."""
    return {BACKGROUND: 0} | {f"class {value}": value for value in sorted(held - {0})}


def _require_held(named: Mapping[str, int | list[int]], sound: Sequence[CheckedCase]) -> None:
    """Raise where a class is named that no label file holds, which would count as found in every case."""
    held = _values_held(sound)
    absent = {name: values for name, values in named.items() if not held.issuperset(_listed(values))}
    if absent:
        raise SemiclError(
            f"--classes takes values that label files hold, got {json.dumps(absent)}, which no undamaged one holds; "
            "mend the values or leave these classes out"
        )


def _require_classes(folder: Path, classes: dict[str, int], held: set[int]) -> None:
    """Raise where there is nothing but background."""
    if (held - {0}) & set(classes.values()):
        return
    if held:
        raise SemiclError(f"{folder}: the label files hold only background (0); give label files with other values too")
    if len(classes) == 1:
        raise SemiclError(
            f"{folder}: labels/ holds no label file that can be used; put some there, named as the images"
            f"{to_rename(folder)}"
        )


def _require_manageable(name: str, classes: dict[str, int]) -> None:
    """Raise where classes are more, or values larger, than a label can hold on its way to the network."""
    if len(classes) > MOST_CLASSES:
        raise SemiclError(
            f"{name}: {len(classes)} classes with the background, at most {MOST_CLASSES} can be told apart; give label "
            "files, not images, with fewer values"
        )
    value = max(classes.values(), key=abs)
    if abs(value) > LARGEST_VALUE:
        raise SemiclError(f"{name}: label value {value}, at most {LARGEST_VALUE} can be read; give smaller values")


def _require_sharp(found: CaseFolder, classes: Mapping[str, int]) -> None:
    """Raise where masks that are pictures hold more values than they have classes, as at smoothed edges."""
    values = [value for value in classes.values() if value != 0]
    pictures = any(case.label is not None and is_picture(case.label) for case in found.cases)
    if pictures and len(values) > MOST_IN_PICTURES:
        raise SemiclError(
            f"{found.name}: the masks hold {len(values)} values besides 0 ({', '.join(map(str, values[:NAMED]))}, "
            "...), as smoothed or compressed ones do; save them without smoothing, or name the classes by --classes "
            "and give --rest_is_background"
        )


def _channels(checked: Sequence[CheckedCase]) -> int:
    """How many the images have, or most of them."""
    found = Counter(case.channels for case in checked if case.channels is not None)
    return found.most_common(1)[0][0] if found else 1


def _median_voxel_size(sound: Sequence[CheckedCase], grid: Grid) -> tuple[float, float, float]:
    """In mm along superior, right and anterior, after resampling."""
    sizes = [resampled_voxel_size(each.affine, grid) for each in sound if each.affine is not None]
    superior, right, anterior = (float(side) for side in np.median(sizes, axis=0))
    return superior, right, anterior


def _tell_doubts(sound: Sequence[CheckedCase], ignored: Sequence[int], named: bool) -> None:
    """Say what is no mistake in a file or in the values that are to be ignored, but may be one.

    Args:
        sound: the cases.
        ignored: the values.
        named: whether the classes are those that a person named, and not all values there are.
    """
    files = Counter(value for each in sound for value in each.values - {0, *ignored})
    rare = sorted(value for value, count in files.items() if count == 1)
    if rare and not named and max(files.values()) >= COMMON:
        holds = next(each.case.label for each in sound if rare[0] in each.values)
        say(
            f"WARNING: in one label file alone: {', '.join(map(str, rare))} ({rare[0]} in {holds}). Where that is no "
            "class, mend the file, or name the classes by --classes and give --rest_is_background."
        )
    absent = sorted({*ignored} - _values_held(sound))
    if absent:
        say(f"WARNING: no label file holds {', '.join(map(str, absent))}, to be ignored.")
    note = unit_note(sound)
    if note is not None:
        say(note)
    constant = [each.case.name for each in sound if each.is_constant]
    if constant:
        say(f"WARNING: of one value alone, in which a network sees nothing: {', '.join(constant)}.")


Shapes = Mapping[Case, tuple[int, int, int]]
"""Of each case's image along superior, right and anterior, once resampled."""


def _tell_patches(grid: Grid, shapes: Shapes) -> None:
    """Say where slices are larger than a patch."""
    larger = [shape for shape in shapes.values() if grid.sliding_window and grid.cuts(shape)]
    if larger:
        say(
            f"Slices of {_range(_told(shape[1:] for shape in larger))} are larger than patches of "
            f"{_by(grid.patch_size)}: training takes random patches of them, prediction goes over them with a sliding "
            "window. The option resize of prepare shrinks them instead, as in the paper."
        )


def _tell_shrinkage(prepared: Prepared, shapes: Shapes) -> None:
    """Say how images are shrunk or resampled, and what that costs, measured on the cases that are shrunk most."""
    grid = prepared.grid
    factors = {case: grid.shrinkage(shape) for case, shape in shapes.items()}
    shrunk = sorted((case for case, factor in factors.items() if factor < 1), key=lambda case: factors[case])
    if not shrunk and grid.spacing is None:
        return
    done = [] if grid.spacing is None else [f"Volumes are resampled to voxels of {_by(grid.spacing)} mm."]
    if shrunk:
        lengths = _range(_told(shapes[case][1:] for case in shrunk))
        sides = _range(sorted({f"{factors[case]:.2g}" for case in shrunk}))
        patch = _by(grid.patch_size)
        done.append(f"WARNING: slices of {lengths} are shrunk to fit {patch}, by a factor of {sides}.")
    judged = [case for case in shrunk or shapes if case.label is not None][:JUDGED]
    left = [_dice_left(prepared, case) for case in judged]
    by_class = {name: [dice[name] for dice in left if name in dice] for name in prepared.classes}
    told = ", ".join(f"{name} {np.mean(dice):.3f}" for name, dice in by_class.items() if dice)
    if told:
        done.append(f"A perfect label keeps a Dice of {told} ({', '.join(case.name for case in judged)}).")
    if shrunk:
        done.append("Give a larger --patch_size, or leave out --resize for patches at full resolution.")
    say(" ".join(done))


def _dice_left(prepared: Prepared, case: Case) -> dict[str, float]:
    """What a label on the grid keeps of each class that the case's label file holds."""
    from semicl.data.volumes import shrunk_and_back

    assert case.label is not None
    values = list(prepared.classes.values())
    truth, back = shrunk_and_back(case.label, prepared.grid, values, case.image, prepared.merged)
    dice = {}
    for number, name in enumerate(prepared.classes):
        one, other = truth == number, (back == number) & (truth != IGNORED)
        if number > 0 and one.any():
            dice[name] = 2 * float((one & other).sum()) / float(one.sum() + other.sum())
    return dice


def _by(sides: Iterable[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)


def _told(shapes: Iterable[Sequence[int]]) -> list[str]:
    """Different shapes, the smallest first."""
    return [_by(shape) for shape in sorted(set(map(tuple, shapes)), key=lambda shape: (math.prod(shape), shape))]


def _range(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def tell_levels(grid: Grid) -> None:
    """Say where the default network would not take the patch."""
    levels = len(NetworkOptions().levels)
    if grid.most_levels < levels:
        factor = 2 ** (levels - 1)
        say(
            f"Patches of {' x '.join(map(str, grid.patch_size))} fit networks of at most {grid.most_levels} levels; "
            f"the default one has {levels}: give training fewer --network.widths, or prepare multiples of {factor}, "
            f"larger than {factor} along one axis."
        )


def _sound_cases(
    checked: Sequence[CheckedCase],
    classes: dict[str, int],
    grid: Grid,
    leave_out_damaged: bool,
    folder: Path,
    more_classes: Mapping[str, int | list[int]],
    merged: Merged,
) -> tuple[CheckedCase, ...]:
    """The cases of a folder that are without a problem.

    Args:
        checked: all of them.
        classes: names and values.
        grid: that they are put on.
        leave_out_damaged: whether to go on without the others.
        folder: of the cases.
        more_classes: what the option of the classes would be with all values that label files hold, if they are few.
        merged: other values that count as a class, or are ignored.

    Raises:
        SemiclError: a case has one and is not to be left out, or all that have a label have.
    """
    channels = _channels(checked)
    found_in = {each.case.name: list(problems(each, classes, grid, channels, merged)) for each in checked}
    wrong = {name: found for name, found in found_in.items() if found}
    sound = tuple(each for each in checked if each.case.name not in wrong)
    if not wrong:
        return sound
    table = Table("case", "file", "what is wrong", "way out", title="Problems", title_justify="left")
    for name, found in wrong.items():
        for problem in found:
            table.add_row(name, os.path.relpath(problem.file, folder), problem.what, problem.way_out)
    show(table)
    some_left = any(each.case.label is not None for each in sound)
    if not leave_out_damaged or not some_left:
        first = next(iter(wrong.values()))[0]
        others = sum(map(len, wrong.values())) - 1
        told = f"{first}" + (f" (and {others} more, see the table)" if others else "")
        if 0 < len(more_classes) <= FEW_CLASSES:
            told += f"; or --classes {shlex.quote(json.dumps(more_classes, ensure_ascii=False))}"
        raise SemiclError(told + ("; or --leave_out_damaged" if some_left and not leave_out_damaged else ""))
    say(f"Left out: {', '.join(wrong)}.")
    return sound


def _conclude(prepared: Prepared, split: Split, shapes: Shapes) -> None:
    parts = {
        part: f"{counted(len(cases), 'case')} of {counted(len({case.subject for case in cases}), 'subject')}, "
        f"{sum(case.label is not None for case in cases)} with labels"
        for part, cases in vars(split).items()
    }
    ignored = [value for value, counts_as in prepared.merged.items() if counts_as is None]
    pictures = all(is_picture(case.image) for case in prepared.cases)
    rows = {
        "dataset": prepared.name,
        "classes": ", ".join(f"{name} ({value})" for name, value in prepared.classes.items()),
        "cases": f"{len(prepared.cases)}, {sum(case.label is not None for case in prepared.cases)} with labels",
        "subjects": len({case.subject for case in prepared.cases}),
        **{f"split 0, {part}": text for part, text in parts.items()},
        **({"channels": prepared.channels} if prepared.channels > 1 else {}),
        **({"ignored": ", ".join(map(str, ignored))} if ignored else {}),
        f"sizes in {'pixels' if pictures else 'voxels'}": _range(_told(shapes.values())),
        "patch size": _by(prepared.grid.patch_size),
        "folder": prepared.folder,
    }
    conclude("Prepared", rows)
