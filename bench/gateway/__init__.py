"""Our gateway beside LiteLLM's proxy and a bare pass-through: same upstream, same client, same body, in turn."""
