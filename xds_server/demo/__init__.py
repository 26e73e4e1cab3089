"""A mesh on this machine: the control plane and real Envoys as processes, with small services to send traffic to.

Used by `kuma-cp demo` and by the pytest plugin. Never here: anything that a control plane in earnest needs.
"""
