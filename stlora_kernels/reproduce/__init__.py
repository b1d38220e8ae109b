"""The paper's tables and figures, measured anew: a grid of runs, paired statistics, tables, pictures."""
