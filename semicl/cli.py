"""The command line: options from the typed dataclasses, errors in one line."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from jsonargparse import ArgumentParser, Namespace

from semicl.errors import SemiclError
from semicl.options import QUICK, DemoOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 for what the user can mend, 130 when interrupted."""
    try:
        parser = _parser(DemoOptions())
        parsed = parser.parse_args(arguments)
        if parsed.demo.quick:  # the same options again, over smaller defaults
            parser = _parser(QUICK)
            parsed = parser.parse_args(arguments)
        _demo(parser.instantiate(parsed).demo)
    except SemiclError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # libraries put line breaks in their reasons
        return 1
    except OSError as error:
        print(f"error: {error}; give --output a folder that can be written and has space", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser(defaults: DemoOptions) -> ArgumentParser:
    demo = ArgumentParser(description="Pre-train with contrast, fine-tune on few labels, compare with a random start.")
    demo.add_argument("--config", action="config", help="YAML file of options; the command line wins")
    demo.add_argument("--quick", action="store_true", help="a few steps of a tiny network, to see that all is in place")
    demo.add_class_arguments(DemoOptions, default=defaults)
    parser = ArgumentParser(prog="semicl", description="Label-efficient medical image segmentation.")
    commands = parser.add_subcommands()
    commands.add_subcommand("demo", demo, help="the quick tour, a few minutes on a CPU")
    return parser


def _demo(options: Namespace) -> None:
    # Imported here so that --help and a mistyped option answer at once.
    from semicl.demo import run_demo

    run_demo(DemoOptions(**{name: getattr(options, name) for name in asdict(DemoOptions())}))
