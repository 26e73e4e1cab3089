"""The decisions of the control plane: values in, values out.

Here live the resource model, the translation into Envoy's resources, the incremental engine and the xDS protocol.
Never here: IO, event loop, clock, randomness, logging. See `README.md` beside this file for the contracts.
"""
