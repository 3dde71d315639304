"""Documents for long-term memory: bytes → clean blocks (``parse.py``) → chunks that an embedder can see (``chunk.py``).

Pure: no database, no cloud. What an author may have made hostile is read in a child process (``isolation.py``).
"""
