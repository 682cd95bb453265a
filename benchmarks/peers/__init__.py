"""Other solvers of the same problem, run beside ours on the same token ids."""
