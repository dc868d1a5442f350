"""How fast this machine multiplies matrices: `python -m optim.run.product` prints it, for one core.

That is a process of its own: how many threads a product has is read once, when NumPy is loaded.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np

from optim.common.files import environment
from optim.measure.device import cores

MEASURE_S = 0.5
# What the libraries behind NumPy's products read: OpenBLAS, MKL, OpenMP, Apple's Accelerate, BLIS.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS")


def product_rate() -> float:
    """Operations in a second of float32 products: what one core does, times the cores that this process may use.

    One thread is timed, as threads wait for each other: on two busy cores, three calls gave 15, 124 and 137 billions
    with two threads, and 70, 77 and 82 with one. Cores that share a processor's units do less than this says.
    """
    done = subprocess.run(
        [sys.executable, "-m", "optim.run.product"], env={**environment(), **dict.fromkeys(THREADS, "1")},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return cores() * float(done.stdout)


def core_rate(measure_s: float = MEASURE_S) -> float:
    """Operations in a second of the fastest of many small float32 products, so that what runs beside counts little.

    In NumPy, and so in float32 alone: TensorFlow, which has bfloat16, takes seconds to import.
    """
    rows, width = 128, 768  # the fastest takes a few milliseconds
    one, other = np.ones((rows, width), np.float32), np.ones((width, width), np.float32)
    out, times, end = one @ other, [], time.perf_counter() + measure_s
    while (start := time.perf_counter()) < end:
        np.matmul(one, other, out=out)
        times.append(time.perf_counter() - start)
    return 2.0 * rows * width * width / min(times)


if __name__ == "__main__":
    print(core_rate())
