"""YAML, and JSON with it, in which a key may stand once in a mapping: of two values the first would be lost."""

from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import get_loader


def load_yaml(text: str) -> Any:
    """What the text holds.

    Raises:
        ValueError: a key is given twice in one mapping, at any depth.
        Exception: no YAML, whatever the loader raises.
    """
    require_keys_once(text)
    return get_loader("yaml")(text)


def require_keys_once(text: str) -> None:
    """Raise where a key is given twice in one mapping of the text, at any depth; what is no YAML has no keys.

    Raises:
        ValueError: so it is.
    """
    try:
        nodes = [yaml.compose(text, yaml.SafeLoader)]
    except (yaml.YAMLError, ValueError):
        return
    for node in nodes:  # which grows; an alias leads to a node that is in it already
        inner: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            names = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            repeated = next((name for at, (tag, name) in enumerate(names) if (tag, name) in names[:at]), None)
            if repeated is not None:
                raise ValueError(f"{repeated!r} is given twice")
            inner = [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        nodes += [each for each in inner if not any(each is known for known in nodes)]
