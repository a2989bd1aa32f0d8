"""Benchmarks, called by tools/benchmark.py."""
