"""Segue's workloads on a real Patroni cluster, under faults, with a verdict: see docs/chaos.md."""
