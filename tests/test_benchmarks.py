"""The script for a GPU works where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from normlab.utils.files import read_csv


@pytest.mark.slow
def test_the_gpu_script_measures(tmp_path: Path) -> None:
    settings, out = "8:float32,8:tf32", tmp_path / "gpu.csv"
    small = ("--norms", "bn,bin", "--settings", settings, "--images", "64", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *small, "--no-compiled", "--out", out],
        cwd=ROOT,
        # its processes, with several threads each, would wait for each other
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_csv(out)
    assert [(row["precision"], row["norm"]) for row in rows] == [
        ("float32", "bn"), ("float32", "bin"), ("tf32", "bn"), ("tf32", "bin")
    ]  # fmt: skip
    for row in rows:
        assert float(row["images_per_s"]) > 0
        assert float(row["fraction_of_convolutions"]) > 0
    assert [bool(row["epoch_s"]) for row in rows] == [True, False, True, False]
