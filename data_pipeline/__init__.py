"""Simulated scenes and real clips turned into training windows."""
