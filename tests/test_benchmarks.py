"""The benchmarks measure in small on a CPU, and write the columns of the committed tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from normlab.utils.files import read_csv

SMALL = {
    "gpu": ("--settings", "128:tf32", "--images", "256", "--norms", "bn,bin"),
    "throughput": ("--norms", "gn", "--batch-sizes", "128"),
    "jobs": ("--norms", "bn", "--batch-sizes", "128"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_measures(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "1", "--out", out]
    # The compiler, for each process, and several threads in each would take minutes.
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *SMALL[name]], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_csv(out)
    assert done.stdout.count("\n       128  ") == len(rows)
    for row in rows:
        rates = [value for column, value in row.items() if column.endswith("images_per_s")]
        assert rates
        assert all(float(rate) > 0 for rate in rates)
    if name == "gpu":
        assert [(row["precision"], row["norm"], bool(row["epoch_s"])) for row in rows] == [
            ("tf32", "bn", True), ("tf32", "bin", False),
        ]  # fmt: skip
    committed = ROOT / "benchmarks" / f"{name}-avx2.csv".replace("throughput-avx2", "avx2-float32")
    assert name == "gpu" or list(rows[0]) == list(read_csv(committed)[0])
