"""The control plane's own keys and certificates. Never here: tokens, and certificates of workloads."""
