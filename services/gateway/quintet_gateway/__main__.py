"""Starts the gateway."""

import sys
from functools import partial

from quintet_gateway.app import open_application
from quintet_gateway.settings import Settings
from quintet_servicekit.server import run

if __name__ == "__main__":
    settings = Settings()
    sys.exit(run("gateway", settings, partial(open_application, settings)))
