"""Command line: `python -m q8ta_ops info | demo`."""

from __future__ import annotations

import argparse
import importlib
import sys

_COMMANDS = {
    "info": "list the Vulkan devices, what they can do, and where CPU tensors go",
    "demo": "train, quantize and rewrite a small model, run it on Vulkan and compare with the host kernel",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code. `arguments` defaults to the process's."""
    parser = argparse.ArgumentParser(prog="python -m q8ta_ops", description="int8 linear operators on Vulkan")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    command = parser.parse_args(arguments).command
    # Imported by need: the demo's module needs packages that `info` can do without.
    return importlib.import_module(f"q8ta_ops.{command}").main() or 0


if __name__ == "__main__":
    sys.exit(main())
