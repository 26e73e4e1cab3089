"""What users write: Kuma's resources as frozen values, their encoding, and the shared rules of validation.

Never here: Envoy's messages, matching, or anything that depends on more than one resource.
"""
