"""Envoy's resources as the server holds them: serialised once, named, versioned by content.

Never here: what the resources mean (`snapshot.envoy`, `snapshot.generators`), or which stream has seen them
(`snapshot.stream`).
"""
