import multiprocessing
import os

import torch
from rich.console import Console

from experiments import workers
from experiments.workers import Pool


def square(job):
    """Return the job's square, how many threads there are for it, and the process that did it."""
    if job == 3 and multiprocessing.parent_process() is not None:
        os._exit(1)
    return job**2, torch.get_num_threads(), os.getpid()


def run(jobs, count, **more):
    console = Console(record=True, quiet=True)
    pool = Pool(square, lambda job, error: (job, type(error).__name__), cost=lambda job: job, **more)
    return pool.run(jobs, count, console)


def test_jobs_are_done_by_one_thread_in_other_processes_and_results_are_in_their_order():
    results, interrupted = run([1, 4, 2], 2)
    squares, threads, processes = zip(*results, strict=True)
    assert squares == (1, 16, 4)
    assert threads == (1, 1, 1)
    assert os.getpid() not in processes
    assert not interrupted


def test_one_worker_is_this_process():
    (result,), _ = run([2], 1)
    assert result == (4, 1, os.getpid())


def test_a_process_that_dies_loses_its_job_and_not_the_sweep():
    assert run([3], 2) == ([(3, "BrokenProcessPool")], False)


def test_ctrl_c_keeps_what_is_finished():
    def remark(result):
        raise KeyboardInterrupt

    results, interrupted = run([1, 2], 1, remark=remark)
    assert [square for square, *_ in results] == [1]
    assert interrupted


def test_there_are_as_many_workers_as_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    assert workers.default_workers() == 3
