"""``python -m benchmarks overhead`` and the other measurements; ``--help`` lists them."""

import tyro

from benchmarks import accuracy, monitor, overhead, speed

if __name__ == "__main__":
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
        config=(tyro.conf.OmitArgPrefixes,),
    )
