from rich.console import Console

from experiments import sweep
from experiments.sweep import Job
from experiments.training import RunSettings

QUIET = Console(quiet=True)


def job(depth=1, seed=0, **settings):
    shared = {"activation": "relu", "initialisation": "he", "width": 8, "steps": 4, "every": 2} | settings
    return Job(RunSettings(depth=depth, seed=seed, **shared), None)


def test_results_come_in_the_order_of_the_jobs_and_do_not_depend_on_the_number_of_workers():
    jobs = [job(1), job(3), job(2), job(1, seed=1)]
    here = sweep.run(jobs, 1, QUIET)
    there = sweep.run(jobs, 2, QUIET)
    assert [result.settings for result in here.results] == [job.settings for job in jobs]
    assert here == there
    assert not here.interrupted


def test_a_run_that_fails_or_diverges_is_marked_and_the_others_go_on(tmp_path):
    (tmp_path / "file").write_text("")
    unwritable = job(1)._replace(log_dir=tmp_path / "file" / "run")
    outcome = sweep.run([unwritable, job(2, learning_rate=1e30), job(1)], 1, QUIET)
    assert [result.status.split(" ")[0] for result in outcome.results] == ["failed:", "diverged", "finished"]
    assert "OSError" in outcome.results[0].status
