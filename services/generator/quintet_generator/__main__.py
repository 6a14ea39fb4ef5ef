"""Runs the generator service: `python -m quintet_generator`."""

import sys

from quintet_generator.app import open_application
from quintet_generator.settings import GeneratorSettings
from quintet_servicekit.server import run

if __name__ == "__main__":
    settings = GeneratorSettings()
    sys.exit(run("generator", settings, lambda: open_application(settings)))
