"""From a Proxy to drafts of Envoy's messages: one file for each kind of listener.

Never here: policies that change what is there (`snapshot.policies`), serialisation (`snapshot.pipeline`).
"""
