"""Talking to remote MCP servers (streamable HTTP, both protocol eras) by the same way out as any other request.

``session`` is what was agreed with a server, ``negotiation`` how, ``kept`` holds sessions from call to call; ``client``
calls and lists tools in them. All but ``session`` and ``kept`` import the SDK, which takes half a second.
"""
