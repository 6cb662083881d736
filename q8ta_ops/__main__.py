"""Command line: `python -m q8ta_ops info | self-test | demo | bench`."""

from __future__ import annotations

import argparse
import importlib
import sys

_COMMANDS = {
    "info": "list the Vulkan devices, what they can do, and where CPU tensors go",
    "self-test": "run every kernel that could be chosen on the device; prints a report for an issue",
    "demo": "train, quantize and rewrite a small model, run it on Vulkan and compare with the host kernel",
    "bench": "measure the kernels against what a user would pick instead and what the hardware allows",
}
_WITH_ARGUMENTS = ("bench",)


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code. `arguments` defaults to the process's."""
    parser = argparse.ArgumentParser(prog="python -m q8ta_ops", description="int8 linear operators on Vulkan")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in _COMMANDS.items():
        # A command with arguments of its own has its own --help, too.
        commands.add_parser(name, help=text, description=text, add_help=name not in _WITH_ARGUMENTS)
    parsed, rest = parser.parse_known_args(arguments)
    if rest and parsed.command not in _WITH_ARGUMENTS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # Imported by need: the demo's module needs packages that `info` can do without.
    run = importlib.import_module(f"q8ta_ops.{parsed.command.replace('-', '_')}").main
    return (run(rest) if parsed.command in _WITH_ARGUMENTS else run()) or 0


if __name__ == "__main__":
    sys.exit(main())
