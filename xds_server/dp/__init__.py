"""`kuma-dp run`: renders the Dataplane, fetches the bootstrap over verified TLS, and becomes Envoy by exec.

Never here: gRPC, Envoy's messages, anything of the control plane. Start-up is on the path of every proxy, so imports
stay within the standard library, PyYAML and the Mustache renderer; `cryptography` is loaded only to read a public key.
"""
