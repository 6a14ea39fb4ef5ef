"""Starts the embedder."""

import sys
from functools import partial

from quintet_embedder.app import open_application
from quintet_embedder.settings import Settings
from quintet_servicekit.server import run

if __name__ == "__main__":
    settings = Settings()
    sys.exit(run("embedder", settings, partial(open_application, settings)))
