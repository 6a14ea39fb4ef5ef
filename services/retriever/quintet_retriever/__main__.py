"""Starts the retriever: `python -m quintet_retriever`."""

import sys

from quintet_retriever.app import open_application
from quintet_retriever.settings import Settings
from quintet_servicekit.server import run

if __name__ == "__main__":
    settings = Settings()
    sys.exit(run("retriever", settings, lambda: open_application(settings)))
