"""Who may join and who may administrate: signing keys, tokens, stream credentials, revocation (R §5).

Never here: HTTP, gRPC, and what a caller may do (that is `api.access`).
"""
