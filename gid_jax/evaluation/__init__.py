"""Judging a trained model: Fréchet distances, motion, rendering, and the report of them."""
