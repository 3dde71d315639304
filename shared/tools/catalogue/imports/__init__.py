"""Tools from elsewhere: OpenAPI documents, remote MCP servers, tool packs."""
