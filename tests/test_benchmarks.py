"""The script for a GPU works where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from normlab.utils.files import read_csv


@pytest.mark.slow
def test_the_gpu_script_checks_and_measures(tmp_path: Path) -> None:
    small = ("--norms", "bn,bin", "--batch-sizes", "8", "--epochs", "2", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *small, "--no-compiled", "--out", tmp_path / "x"],
        cwd=ROOT,
        # its processes, with several threads each, would wait for each other
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checks = read_csv(tmp_path / "x-checks.csv")
    assert {row["check"].partition(":")[0] for row in checks} == {
        "PyTorch's layer", "compiled", "trained twice", "killed and resumed"
    }  # fmt: skip
    assert all(row["passed"] == "True" for row in checks)
    speed = read_csv(tmp_path / "x-speed.csv")
    assert [row["norm"] for row in speed] == ["bn", "bin"]
    for row in speed:
        assert 0 < float(row["optimizer"]) < float(row["network"])
    [together] = read_csv(tmp_path / "x-jobs.csv")
    assert together["jobs"] == "2"
    assert float(together["jobs_images_per_s"]) > 0
