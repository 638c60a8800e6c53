"""``python -m experiments depth`` and the other experiments; ``--help`` lists them."""

from __future__ import annotations

from typing import Annotated, Any

import tyro

from experiments import backpropagation, calibrate, depth, gradient_descent, learning_speed

Settings = (
    Annotated[depth.Settings, tyro.conf.subcommand("depth")]
    | Annotated[learning_speed.Settings, tyro.conf.subcommand("learning-speed")]
    | Annotated[gradient_descent.Settings, tyro.conf.subcommand("gradient-descent")]
    | Annotated[backpropagation.Settings, tyro.conf.subcommand("backpropagation")]
    | Annotated[calibrate.Settings, tyro.conf.subcommand("calibrate")]
)
EXPERIMENTS = {
    module.Settings: module.main for module in (depth, learning_speed, gradient_descent, backpropagation, calibrate)
}


def main() -> None:
    """Run the experiment that the command line names; tyro turns settings that make no sense into exit status 2."""
    settings: Any = tyro.cli(
        Settings,
        prog="python -m experiments",
        description="Experiments on how gradients vanish and explode.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    EXPERIMENTS[type(settings)](settings)


if __name__ == "__main__":
    main()
