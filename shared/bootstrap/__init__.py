"""The composition root: builds each client on first use and hands it to the domains. Nothing else constructs them.

One file a storey, as the layers go: ``core`` below, ``tools`` on it, ``services`` on top.
"""

from shared.bootstrap.services import Services, open_services

__all__ = ["Services", "open_services"]
