"""``python -m experiments depth | gradient-descent | backpropagation | learning-speed``."""

from __future__ import annotations

import tyro

from experiments import backpropagation, gradient_descent

EXPERIMENTS = {
    "gradient-descent": gradient_descent.main,
    "backpropagation": backpropagation.main,
}


def main() -> None:
    """Run the experiment that the command line names."""
    tyro.extras.subcommand_cli_from_dict(EXPERIMENTS, prog="python -m experiments", description=__doc__)


if __name__ == "__main__":
    main()
