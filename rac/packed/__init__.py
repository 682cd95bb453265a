"""Packed checkpoints: sparse weights that take no room for their zeros, written and loaded."""
