"""Many training runs in local processes, with their results in the order of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from experiments.training import RunResult, RunSettings, train
from experiments.workers import Pool
from torchact import catalogue


class Job(NamedTuple):
    """A run to do, and the TensorBoard folder it writes to, if any."""

    settings: RunSettings
    log_dir: Path | None


class Sweep(NamedTuple):
    """The results that there are, in the order of the jobs, and whether the sweep was cut short."""

    results: list[RunResult]
    interrupted: bool


class _Elsewhere(NamedTuple):
    """A job for a process that need not know the activation yet: how to import it."""

    job: Job
    activation: str


def run(jobs: Sequence[Job], workers: int, console: Console) -> Sweep:
    """Do all jobs, each in one process with one thread, so that a run's numbers do not depend on ``workers``.

    A run that fails is reported and marked, and the others go on. After Ctrl-C the finished runs are returned.

    Args:
        jobs: what to run.
        workers: how many processes; 1 runs everything in this one.
        console: where the progress bar is drawn.
    """
    pool = Pool(
        work=_attempt,
        lost=lambda elsewhere, error: _failed(elsewhere.job, str(error)),
        cost=lambda elsewhere: elsewhere.job.settings.depth,
        remark=lambda result: "" if result.status == "finished" else f"{result.settings.name}: {result.status}",
    )
    names = [catalogue.get(job.settings.activation).importable_name for job in jobs]
    return Sweep(*pool.run(list(map(_Elsewhere, jobs, names)), workers, console))


def _attempt(elsewhere: _Elsewhere) -> RunResult:
    job = elsewhere.job
    try:
        catalogue.get(elsewhere.activation)
    except ValueError as error:
        return _failed(job, str(error))
    try:
        return train(job.settings, job.log_dir)
    except Exception as error:
        return _failed(job, f"{type(error).__name__}: {error}")


def _failed(job: Job, reason: str) -> RunResult:
    return RunResult(settings=job.settings, status=f"failed: {reason}")
