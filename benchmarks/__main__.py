"""``python -m benchmarks overhead`` and the other measurements; ``--help`` lists them."""

import tyro

from benchmarks import monitor, overhead

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"overhead": overhead.main, "monitor": monitor.main},
        description="Measurements of speed, as ratios of interleaved runs.",
        prog="python -m benchmarks",
    )
