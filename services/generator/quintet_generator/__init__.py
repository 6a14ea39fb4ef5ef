"""The generator service: writes an answer from a question and passages."""

import os

# Before gRPC is imported, which reads it then. Its handlers of fork() run in children that
# uvloop starts, and one in sixty or so crashes there before it becomes the batching process.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
