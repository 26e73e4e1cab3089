"""gRPC on one TLS port: ADS and the single-type discovery services, CSDS, HDS, health and reflection.

In here: streams, their tasks, their limits, who may open them. Never in here: what a client must be sent
(`snapshot.stream`), what a proxy gets (`snapshot.engine`), what a token means (`xds_server.tokens`).
"""
