"""The composition root: builds every part from the configuration, starts and stops them in order.

The only place that knows them all. Never here: decisions.
"""

from xds_server.app.main import main

__all__ = ["main"]
