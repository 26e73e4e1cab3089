"""The part of the control plane that touches the world: sockets, the store, the clock, processes.

It decides nothing: it decodes, asks `snapshot`, and performs. See `README.md` beside this file.
"""
