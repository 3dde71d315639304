"""DevTools: a folder per agent in which it may read, write and test code, and nothing else."""
