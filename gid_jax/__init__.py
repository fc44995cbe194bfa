"""Generative Image Dynamics in JAX: one still photo in, natural oscillating motion out."""

__version__ = "0.1.0"
