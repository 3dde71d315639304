"""Memory measured through its own API: what it finds (``quality``) and how fast among how much (``scale``)."""
