"""infinity-emb's own server, as `infinity_emb v2` starts it.

    python -m bench.workers.infinity_server MODEL_FOLDER

Runs with the Python of the peer's environment.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

os.environ["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"

import torch
import uvicorn  # type: ignore[import-not-found]
from infinity_emb import EngineArgs, create_server  # type: ignore[import-not-found]

from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Start the server in a thread."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    arguments = EngineArgs(
        model_name_or_path=sys.argv[1],
        served_model_name="model",
        engine="torch",
        device="cpu",
        dtype="bfloat16",
        batch_size=32,
        bettertransformer=False,
        lengths_via_tokenize=False,
        model_warmup=False,
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(
        uvicorn.Config(create_server(engine_args_list=[arguments]), log_level="warning")
    )
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return lambda: listening.getsockname()[1]


if __name__ == "__main__":
    serve(open_worker)
