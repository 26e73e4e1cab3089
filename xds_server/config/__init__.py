"""Settings of the control plane: defaults, a YAML file, environment variables, flags, in rising order (R §6.2).

`load(...)` gives a frozen `Config`. Never here: reading a setting in the middle of the work.
"""

from xds_server.config.load import ConfigError, Loaded, load, to_rest
from xds_server.config.tree import Config

__all__ = ["Config", "ConfigError", "Loaded", "load", "to_rest"]
