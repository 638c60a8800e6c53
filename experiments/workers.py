"""Jobs shared by local processes of one thread each: a progress bar, nothing lost on Ctrl-C, no number that depends on
how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Generic, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Generic[Job, Result]):
    """Does jobs in local processes, each with one thread.

    Args:
        work: does a job. It can be imported, and raises nothing.
        lost: the result of a job whose process died of this error.
        cost: what grows with the time that a job takes: the longest come first, so that no core waits for the last one.
        remark: what is to be said of a result, or nothing.
    """

    def __init__(
        self,
        work: Callable[[Job], Result],
        lost: Callable[[Job, BrokenProcessPool], Result],
        cost: Callable[[Job], float],
        remark: Callable[[Result], str] = lambda result: "",
    ) -> None:
        self._work, self._lost, self._cost, self._remark = work, lost, cost, remark

    def run(self, jobs: Sequence[Job], workers: int, console: Console) -> tuple[list[Result], bool]:
        """Do all jobs.

        Args:
            jobs: what to do.
            workers: how many processes; 1 does everything in this one.
            console: where the progress bar is drawn.

        Returns:
            The results in the order of the jobs, and whether Ctrl-C cut it short: then the finished ones.
        """
        done: dict[int, Result] = {}
        with _progress(console) as progress:
            task = progress.add_task("runs", total=len(jobs))

            def finish(index: int, result: Result) -> None:
                done[index] = result
                progress.advance(task)
                if remark := self._remark(result):
                    progress.console.print(remark, highlight=False)

            try:
                if workers == 1:
                    self._run_here(jobs, finish)
                else:
                    self._run_in_processes(jobs, workers, finish)
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
        return [done[index] for index in sorted(done)], interrupted

    def _run_here(self, jobs: Sequence[Job], finish: Callable[[int, Result], None]) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for index, job in enumerate(jobs):
                finish(index, self._work(job))
        finally:
            torch.set_num_threads(threads)

    def _run_in_processes(self, jobs: Sequence[Job], workers: int, finish: Callable[[int, Result], None]) -> None:
        executor = ProcessPoolExecutor(workers, mp_context=_context(), initializer=_start_worker)
        order = sorted(range(len(jobs)), key=lambda index: -self._cost(jobs[index]))
        pending = {executor.submit(self._work, jobs[index]): index for index in order}
        try:
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = pending.pop(future)
                    finish(index, self._result_of(future, jobs[index]))
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            for future, index in pending.items():  # after Ctrl-C: those that were running and are now finished
                if not future.cancelled():
                    finish(index, self._result_of(future, jobs[index]))

    def _result_of(self, future: Future[Result], job: Job) -> Result:
        try:
            return future.result()
        except BrokenProcessPool as error:
            return self._lost(job, error)


def _context() -> BaseContext:
    """Return how processes are started: not forked from this one, which may hang once it has used torch's threads.

    Where there is one, a process that has done nothing but import is forked, and torch is imported only once.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.training", "torch._dynamo"])  # which making an optimiser imports
    return context


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent alone answers
    torch.set_num_threads(1)


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
