"""Measurements, not tests: run one as `python -m benchmarks.throughput`."""
