"""Plain torch: what every op means. Runs on any device, needs nothing but torch."""
