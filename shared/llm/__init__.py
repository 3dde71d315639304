"""Model calls: logical models, routes, providers, prices and the ledger. ``gateway.py`` is the door."""
