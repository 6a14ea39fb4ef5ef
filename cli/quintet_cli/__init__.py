"""The `quintet` command: people's and scripts' way to a gateway.

`app` says what the command line looks like and is light, so that `--help` is
quick; `commands` does the work and is imported only by the command that runs.
"""
