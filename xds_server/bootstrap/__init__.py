"""What a control plane and a proxy begin with: the first start, and Envoy's bootstrap over HTTPS (R §7.2, X §9)."""
