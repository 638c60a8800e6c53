"""``python -m benchmarks overhead``."""

import tyro

from benchmarks import overhead

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {"overhead": overhead.main}, description="Measurements of speed.", prog="python -m benchmarks"
    )
