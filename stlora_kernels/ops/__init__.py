"""One folder per fused operation, always with the same file names; ``dispatch`` picks the backend."""
