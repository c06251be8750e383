"""Methods scored on benchmarks."""
