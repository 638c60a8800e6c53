"""Many runs in local processes: a progress bar, results in the order of the settings, and nothing lost on Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.training import RunResult, RunSettings, train
from torchact import catalogue

Finish = Callable[[int, RunResult], None]


class Job(NamedTuple):
    """A run to do, and the TensorBoard folder it writes to, if any."""

    settings: RunSettings
    log_dir: Path | None


class Sweep(NamedTuple):
    """The results that there are, in the order of the jobs, and whether the sweep was cut short."""

    results: list[RunResult]
    interrupted: bool


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(jobs: Sequence[Job], workers: int, console: Console) -> Sweep:
    """Do all jobs, each in one process with one thread, so that a run's numbers do not depend on ``workers``.

    A run that fails is reported and marked, and the others go on. After Ctrl-C the finished runs are returned.

    Args:
        jobs: what to run.
        workers: how many processes; 1 runs everything in this one.
        console: where the progress bar is drawn.
    """
    done: dict[int, RunResult] = {}
    interrupted = False
    with _progress(console) as progress:
        task = progress.add_task("runs", total=len(jobs))

        def finish(index: int, result: RunResult) -> None:
            done[index] = result
            progress.advance(task)
            if result.status != "finished":
                progress.console.print(f"{result.settings.name}: {result.status}", highlight=False)

        try:
            if workers == 1:
                _run_here(jobs, finish)
            else:
                _run_in_processes(jobs, workers, finish)
        except KeyboardInterrupt:
            interrupted = True
    return Sweep([done[index] for index in sorted(done)], interrupted)


def _run_here(jobs: Sequence[Job], finish: Finish) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index, job in enumerate(jobs):
            finish(index, _attempt(job))
    finally:
        torch.set_num_threads(threads)


def _run_in_processes(jobs: Sequence[Job], workers: int, finish: Finish) -> None:
    context = multiprocessing.get_context("spawn")  # forking a process that has used torch's threads may hang
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    activations = [catalogue.get(job.settings.activation).importable_name for job in jobs]
    # Longest first, so that no core is left waiting for the last run.
    order = sorted(range(len(jobs)), key=lambda index: -jobs[index].settings.depth)
    pending: dict[Future[RunResult], int] = {
        pool.submit(_attempt_anywhere, jobs[index], activations[index]): index for index in order
    }
    try:
        while pending:
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                index = pending.pop(future)
                finish(index, _result_of(future, jobs[index]))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for future, index in pending.items():  # after Ctrl-C: those that were running and are now finished
            if not future.cancelled():
                finish(index, _result_of(future, jobs[index]))


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent alone answers
    torch.set_num_threads(1)


def _attempt(job: Job) -> RunResult:
    try:
        return train(job.settings, job.log_dir)
    except Exception as error:
        return RunResult(settings=job.settings, status=f"failed: {type(error).__name__}: {error}")


def _attempt_anywhere(job: Job, activation: str) -> RunResult:
    """Do a job in a process that need not know the activation yet."""
    try:
        catalogue.get(activation)
    except ValueError as error:
        return RunResult(settings=job.settings, status=f"failed: {error}")
    return _attempt(job)


def _result_of(future: Future[RunResult], job: Job) -> RunResult:
    try:
        return future.result()
    except BrokenProcessPool as error:
        return RunResult(settings=job.settings, status=f"failed: {error}")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )
