"""Runs the tokenizer service: `python -m quintet_tokenizer`."""

import sys
from functools import partial

from quintet_servicekit.server import run
from quintet_tokenizer.app import open_application
from quintet_tokenizer.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    sys.exit(run("tokenizer", settings, partial(open_application, settings)))
