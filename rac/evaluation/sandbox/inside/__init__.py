"""What runs in the sandbox's own processes: Python's standard library alone, nothing of rac."""
