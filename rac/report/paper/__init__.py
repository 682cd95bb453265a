"""Numbers that the two papers report, to be laid beside ours."""
