"""Options as pydantic dataclasses, and configs: YAML files of them, shipped or of one's own.

A config of `semicl run` holds what all stages share at its top and one section a stage. Each stage's command takes the
same file: it reads what it shares and its own section. A config of one command holds that command's options at its top.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import field, fields, is_dataclass
from difflib import get_close_matches
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml  # type: ignore[import-untyped]
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform
from tyro.constructors import PrimitiveConstructorSpec

from semicl.errors import OptionError, UsageError

T = TypeVar("T")

ALIKE = 0.75
"""How alike a name is that may have been meant, from 0 to 1 of difflib."""

Place = Annotated[Path, AfterValidator(Path.expanduser)]
"""A file or folder; the shell leaves the `~` of `--output=~/runs` alone, and every `~` in YAML."""

NOT_IN_CONFIGS = {"config", "quick", "loss_only", "typed"}
"""Options of the command line alone."""

WANTED = {
    "tuple_type": "Input should be a list, as [1, 2]",
    "dataclass_type": "Input should be a mapping of options, as {name: value}",
}
"""What pydantic says in terms of Python, by its name of the error."""

_SHIPPED = files("semicl") / "configs"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def options(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values pydantic checks; unknown ones are refused.

    What is wrong is raised as an :class:`OptionError`, in one line.
    """
    checked: Any = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))(kind)
    checked_init = checked.__init__

    @wraps(checked_init)
    def init(self: T, *values: Any, **named: Any) -> None:
        try:
            checked_init(self, *values, **named)
        except ValidationError as error:
            raise OptionError(reasons(error, kind)) from None

    checked.__init__ = init
    return checked


def structured(kind: type[T], content: Mapping[str, Any], told: str = "") -> T:
    """The options of a mapping, at any depth.

    Args:
        kind: their dataclass.
        content: the mapping.
        told: what stands before a place in an error: "--config FILE: ", or "methods.mine.finetune.".

    Raises:
        OptionError: an unknown key, or a value that an option does not take; each is named by its place.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(content))
    except ValidationError as error:
        raise OptionError(reasons(error, kind, told)) from None


def reasons(error: ValidationError, kind: type, told: str = "") -> str:
    """What pydantic found wrong, each by its place, and what may have been meant by an unknown name."""
    found, errors = [], error.errors(include_url=False)
    above = {each["loc"][:length] for each in errors for length in range(len(each["loc"]))}
    for each in errors:
        place, what = ".".join(map(str, each["loc"])), each["type"]
        if what == "unexpected_keyword_argument":
            found.append(_unknown(told, place, kind))
        elif what == "value_error":
            found.append(f"{told}{place}{': ' if place else ''}{each['ctx']['error']}")
        elif what != "too_short" or each["loc"] not in above:  # else those of its values that were refused are missed
            wanted = WANTED.get(what, each["msg"])
            found.append(f"{told}{place}: {wanted}, got {json.dumps(each['input'], default=str)}")
    return "; ".join(found)


def _unknown(told: str, place: str, kind: type) -> str:
    meant = did_you_mean(place, [name for name in places(kind) if name not in NOT_IN_CONFIGS])
    meant = meant or "; `--help` lists the options"
    return f"{told}{place} is unknown{meant}"


def places(kind: Any, above: str = "") -> Iterator[str]:
    """The name of every option of a dataclass, at any depth, as `schedule` and `schedule.epochs`."""
    for each in fields(kind):
        yield f"{above}{each.name}"
        if is_dataclass(each.type):
            yield from places(each.type, f"{above}{each.name}.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error: a question, where a known name, or the last part of one, is like this one."""
    known = list(known)
    last = {each.rpartition(".")[2]: each for each in known}
    meant = get_close_matches(name, known, 1, ALIKE) or get_close_matches(name.rpartition(".")[2], last, 1, ALIKE)
    return f"; did you mean {meant[0] if meant[0] in known else last[meant[0]]}?" if meant else ""


def part(kind: type[T], whole: Any) -> T:
    """The fields of one dataclass among those of another that inherits from it."""
    return kind(**{each.name: getattr(whole, each.name) for each in fields(kind)})  # type: ignore[arg-type]


# ---- YAML ------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML, and JSON with it, in which a key may stand once in a mapping: of two values the first would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = next((value for at, (tag, value) in enumerate(keys) if (tag, value) in keys[:at]), None)
        if repeated is not None:
            raise ValueError(f"{repeated!r} is given twice")
        return dict(super().construct_mapping(node, deep))


def load_yaml(text: str) -> Any:
    """What the text holds.

    Raises:
        ValueError: a key is given twice in one mapping, at any depth.
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, _Loader)


def mapping(example: str) -> Any:
    """How tyro takes an option that is a mapping: as one word of JSON or YAML.

    Args:
        example: such a word, for the error.
    """

    def read(words: list[str]) -> dict[str, Any]:
        try:
            content = load_yaml(words[0])
        except yaml.YAMLError:
            content = None
        if not isinstance(content, dict):
            raise ValueError(f"takes a mapping, as '{example}', got {words[0]}")
        return content

    def is_mapping(value: Any) -> bool:
        return value is None or isinstance(value, dict)

    def written(value: Any) -> list[str]:
        return [json.dumps(value, default=str, ensure_ascii=False)]

    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(1, "MAPPING", read, is_mapping, written)
    return spec


def shipped_configs() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir() if file.name.endswith(".yaml"))


def read_config(name: str) -> dict[str, Any]:
    """The options of a config, given by the name of a shipped one or by the path of a file.

    Raises:
        UsageError: neither of both, not readable, a key given twice, or no mapping.
    """
    known = shipped_configs()
    source = _SHIPPED / f"{name}.yaml" if name in known else Path(name).expanduser()
    if not source.is_file():
        raise UsageError(
            f"--config {name}: no such file; give a YAML file or one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    try:
        content = load_yaml(source.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise UsageError(f"--config {name}: not readable as YAML ({error}); mend the file") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {name}: holds no options; write lines of the form 'option: value'")
    return content


def of_command(
    content: Mapping[str, Any], kind: type, section: str | None, of_run: Set[str], name: str
) -> dict[str, Any]:
    """What one command takes of a config.

    Args:
        content: the whole config.
        kind: the command's options.
        section: the command's section, whose keys come to the top; None for a command that takes sections itself.
        of_run: the options and sections of `semicl run`, which a config of it may hold beside.
        name: of the config, for the error.

    Raises:
        UsageError: a key that neither the command nor `semicl run` knows, or a section that holds no options.
    """
    own = {each.name for each in fields(kind)} - NOT_IN_CONFIGS
    for key in content:
        if key not in own and key not in of_run:
            raise UsageError(_unknown(f"--config {name}: ", str(key), kind))
    inner = content.get(section, {}) if section else {}
    if not isinstance(inner, dict):
        raise UsageError(f"--config {name}: {section} takes a mapping of options, got {json.dumps(inner)}")
    return {key: value for key, value in content.items() if key in own} | inner


def laid_over_by(kind: Any, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The options of two configs, those of the second over those of the first, at any depth of dataclasses."""
    inner = {each.name: each.type for each in fields(kind) if is_dataclass(each.type)}
    merged = {**below, **above}
    for name in inner.keys() & below.keys() & above.keys():
        if isinstance(below[name], dict) and isinstance(above[name], dict):
            merged[name] = laid_over_by(inner[name], below[name], above[name])
    return merged


def configured(kind: type[T], names: Sequence[str], read: Callable[[str], Mapping[str, Any]]) -> T:
    """The options of configs, each over those before it, over the defaults.

    Args:
        kind: the options.
        names: of the configs.
        read: from the name of a config to what the command takes of it.

    Raises:
        UsageError: a config cannot be read, holds a key that is unknown, or a value that an option does not take.
    """
    content: dict[str, Any] = {"config": names}
    made = structured(kind, content)
    for name in names:
        content = laid_over_by(kind, content, read(name))
        made = structured(kind, content, f"--config {name}: ")
    return made
