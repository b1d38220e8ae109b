"""A look at measurements before anything is trained on them: what is there, what is missing, what looks wrong."""
