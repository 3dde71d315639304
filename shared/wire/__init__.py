"""The shapes that travel over HTTP: OpenAI's chat types, server-sent events, error bodies. Nothing else knows them."""
