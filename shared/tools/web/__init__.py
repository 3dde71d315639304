"""The one way out for tools: an address-pinned HTTP client with limits, and what speaks MCP over it."""
