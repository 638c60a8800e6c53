"""``python -m benchmarks overhead`` and the other measurements; ``--help`` lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields

import tyro

from benchmarks import accuracy, monitor, overhead, speed
from benchmarks.interleaved import keep_freed_memory

SETTINGS = {field.name for field in fields(speed.Settings)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line names; settings that make no sense end it with status 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "activations": speed.activations,
                "gated": speed.gated,
                "softmax": speed.softmax,
                "statistics": speed.statistics,
                "overhead": overhead.main,
                "monitor": monitor.main,
                "accuracy": accuracy.main,
            },
            description="Measurements of speed, as ratios of interleaved runs, and of accuracy.",
            prog="python -m benchmarks",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except ValueError as error:
        setting, _, _ = str(error).partition(":")  # with which the message begins if it is about one
        if setting not in SETTINGS:
            raise
        print(f"python -m benchmarks: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    keep_freed_memory()
    main()
