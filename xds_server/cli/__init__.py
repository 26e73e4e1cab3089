"""The commands `kuma-cp` and `kumactl`. They parse, ask, and print; each imports what it needs when it needs it.

`kumactl` talks to the REST API like any client. Never here: what a resource means, how the control plane works.
"""
