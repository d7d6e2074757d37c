"""Measurements, not tests: run one as `python -m benchmarks.throughput`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
