"""Triton kernels and their launchers. Imported when first called: nothing else needs triton."""
