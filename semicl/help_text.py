"""`--help` of a command: what each option takes and its default, without Python's types."""

import re
from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter

from semicl.options import STAGES

_LIST = "[ITEM,...]"
"""As jsonargparse writes it; the shell wants it quoted."""

_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT", "Path": "PATH", "<class 'Path'>": "PATH"}


class HelpText(DefaultHelpFormatter):
    """Leaves out what makes a long help hard to read: options of other commands, and whole groups as one option."""

    def add_argument(self, action: Action) -> None:
        of_a_stage = action.dest.partition(".")[0] in STAGES
        whole_group = action.metavar == "CONFIG"  # jsonargparse adds it to every group
        if action.metavar == _LIST:
            action.metavar = repr(_LIST)
        if not of_a_stage and not whole_group:
            super().add_argument(action)

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        kind = re.sub(r"^Optional\[(.*)\]$", r"\1", self._get_type_str(action) or "").removesuffix(" | null")
        if kind.startswith("Literal"):
            return "{" + ",".join(re.findall(r"'([^']+)'", kind)) + "}"
        if kind.startswith("tuple"):
            return repr(_LIST)
        if kind.startswith("dict"):
            return "'{NAME: VALUE,...}'"
        return _METAVARS.get(kind, super()._get_default_metavar_for_optional(action))

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        if action.required and text:
            return f"{text} (required)"
        if action.default is None or action.default == SUPPRESS:  # what leaving it out means is in the text
            return text
        default = _typed(action.default)
        return f"{text} (default: {repr(default) if isinstance(action.default, tuple) else default})"


def _typed(value: object) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_typed, value))}]"
    return str(value)
