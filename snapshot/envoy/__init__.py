"""Small constructors of Envoy's messages, in the forms that Envoy 1.30 to 1.40 accept without a warning (X §0).

Drafts are messages that policies may still change; `finish` packs them. Never here: Kuma's words or rules.
"""
