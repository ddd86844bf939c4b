import numba
import pytest


@pytest.fixture
def use_threads(monkeypatch):
    """Cut the work of compiled kernels as for n threads, and run it on n where the process may have as many."""
    before = numba.get_num_threads()

    def use(n):
        numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
        monkeypatch.setattr(numba, "get_num_threads", lambda: n)

    yield use
    numba.set_num_threads(before)
