"""Benchmarks and training data as records: what differs between them is data, not branches."""
