"""What makes a resource valid: one module a type, each rule with the path and the text of R §2.

Every rule sees one spec alone. Never here: what needs the store (does the mesh exist) or the network.
"""
