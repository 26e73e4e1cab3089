"""The incremental build: changes in, publications out, work in proportion to what changed (laws L1–L7).

`oracle.py` is the slow and obvious build of everything; the two share no incremental code, and must always agree.
"""
