from __future__ import annotations

import pytest

from recon3d.data.worker_pool import run_jobs


def test_crash_hang_and_exception_cost_their_own_job_alone():
    jobs = [
        "6 * 7",
        "1 / 0",
        "__import__('os').kill(__import__('os').getpid(), 9)",
        "__import__('time').sleep(60)",
        "__import__('torch').get_num_threads() + __import__('numba').get_num_threads()",
        *(f"{i} ** 2" for i in range(5)),
    ]
    outcomes = {outcome.job: outcome for outcome in run_jobs(eval, jobs, workers=2, timeout=1.0)}
    assert set(outcomes) == set(jobs)
    assert outcomes[jobs[0]].result == 42 and outcomes[jobs[0]].error is None
    assert outcomes[jobs[1]].error == "ZeroDivisionError: division by zero"
    assert "its process died" in outcomes[jobs[2]].error
    assert outcomes[jobs[3]].error == "took longer than 1 s"
    assert outcomes[jobs[4]].result == 2, "each worker computes on one thread"
    assert [outcomes[job].result for job in jobs[5:]] == [0, 1, 4, 9, 16]


def test_no_jobs_start_no_worker_and_wrong_numbers_are_refused():
    assert list(run_jobs(eval, [], workers=3)) == []
    with pytest.raises(ValueError, match="at least 1 worker"):
        list(run_jobs(eval, ["1"], workers=0))
