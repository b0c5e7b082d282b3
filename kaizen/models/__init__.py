"""The networks: encoder, heads, momentum copy and frozen copy."""
