"""What a network has been trained on, kept in its checkpoint, so that no later command shows it what was held out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from semicl.data.cases import Case
from semicl.data.prepared import Prepared
from semicl.data.splits import PARTS, Split
from semicl.errors import SemiclError


@dataclass(frozen=True)
class Seen:
    """One split of one data set, and whose labels of it a network has seen.

    Args:
        data: name of the data set.
        split: number of the split.
        parts: of the split, each with the names of its cases, sorted.
        label_fraction: what it was told; None where it has seen no label.
        labelled: names of the cases whose labels it was trained on, sorted.
        transductive: whether it has seen the images, not the labels, of the test cases.
        images: names of the cases whose images it was trained on, sorted; None where its checkpoint does not tell.
    """

    data: str
    split: int
    parts: dict[str, tuple[str, ...]]
    label_fraction: float | None
    labelled: tuple[str, ...]
    transductive: bool = False
    images: tuple[str, ...] | None = None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Seen":
        """What `dataclasses.asdict` made of it."""
        parts = {part: tuple(names) for part, names in content["parts"].items()}
        labelled = tuple(content["labelled"])
        transductive = content.get("transductive", False)  # older checkpoints do not tell
        images = content.get("images")
        return cls(
            content["data"],
            content["split"],
            parts,
            content["label_fraction"],
            labelled,
            transductive,
            None if images is None else tuple(images),
        )

    def shares_cases(self, parts: dict[str, tuple[str, ...]]) -> bool:
        """Whether a case is in both splits; none is where the data sets are different ones."""
        return not set().union(*self.parts.values()).isdisjoint(set().union(*parts.values()))


def seen_in(
    data: str,
    number: int,
    split: Split,
    label_fraction: float | None,
    transductive: bool = False,
    images: Iterable[Case] | None = None,
) -> Seen:
    """What a stage sees that is trained on a split with this fraction of the labels, or without labels.

    Args:
        data: name of the data set.
        number: of the split.
        split: whose cases they are.
        label_fraction: None for a stage without labels.
        transductive: whether the images of the test cases are among those it sees.
        images: the cases whose images it is trained on.

    Raises:
        SemiclError: the fraction yields no case.
    """
    labelled = () if label_fraction is None else split.labelled(label_fraction)
    names = None if images is None else _names(images)
    return Seen(data, number, _parts(split), label_fraction, _names(labelled), transductive, names)


def seen_after(before: Sequence[Seen], now: Seen, start: Path) -> tuple[Seen, ...]:
    """What a network has seen after a stage that begins with the weights of a checkpoint.

    Args:
        before: what the checkpoint has seen.
        now: what the stage sees.
        start: the checkpoint, for the errors.

    Raises:
        SemiclError: the checkpoint was trained on another split of these cases, or on labels of another fraction.
    """
    _require_split(before, now.parts, start, f"split {now.split} of {now.data} now")
    same = [seen for seen in before if seen.parts == now.parts]
    for seen in same:
        if now.labelled and seen.labelled and seen.labelled != now.labelled:
            raise SemiclError(
                f"{start}: has seen the labels of {len(seen.labelled)} cases (--label_fraction "
                f"{seen.label_fraction:g}), this stage may see those of {len(now.labelled)} (--label_fraction "
                f"{now.label_fraction:g}); give --label_fraction {seen.label_fraction:g}, or a --start of this fraction"
            )
    others = [seen for seen in before if seen not in same]
    labelled = next((seen for seen in (now, *same) if seen.labelled), now)
    transductive = any(seen.transductive for seen in (now, *same))
    images = [seen.images for seen in (now, *same)]
    known = None if None in images else tuple(sorted({name for names in images for name in names or ()}))
    return (*others, replace(labelled, transductive=transductive, images=known))


def split_to_judge(seen: Sequence[Seen], prepared: Prepared, asked: int | None, checkpoint: Path) -> int:
    """The number of the split whose held-out volumes a network may be judged on.

    Args:
        seen: what the network has seen; nothing where its checkpoint does not tell.
        prepared: the data.
        asked: the number of a split; None for the one that it was trained on.
        checkpoint: the network's, for the error.

    Raises:
        SemiclError: it was trained on another split of these cases.
    """
    trained = seen[-1].split if seen else 0
    number = trained if asked is None else asked
    where = f"split {number} of {prepared.folder}"
    _require_split(seen, _parts(prepared.split(number)), checkpoint, where)
    return number


def trained_on(seen: Sequence[Seen], cases: Iterable[Case]) -> tuple[Case, ...]:
    """Those of the cases whose images a network was trained on, with or without labels, as far as their names tell.

    Where a checkpoint does not tell which, all of the training part may have been.
    """
    names = {name for one in seen for name in (one.parts["training"] if one.images is None else one.images)}
    return tuple(case for case in cases if case.name in names)


def known_test_images(seen: Sequence[Seen], cases: Iterable[Case]) -> tuple[Case, ...]:
    """Those of the cases that are test cases whose images, not labels, a network was trained on, by their names."""
    names = {name for one in seen if one.transductive for name in one.parts["test"]}
    return tuple(case for case in cases if case.name in names)


def _require_split(seen: Sequence[Seen], parts: dict[str, tuple[str, ...]], checkpoint: Path, where: str) -> None:
    for one in seen:
        if one.parts != parts and one.shares_cases(parts):
            raise SemiclError(
                f"{checkpoint}: was trained on split {one.split} of {one.data}, whose cases are shared out in another "
                f"way than in {where}, so it may have seen what is held out; give the --split ({one.split}) and the "
                "--prepared that it was trained on, or a checkpoint of this split"
            )


def _parts(split: Split) -> dict[str, tuple[str, ...]]:
    return {part: _names(getattr(split, part)) for part in PARTS}


def _names(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(sorted(case.name for case in cases))
