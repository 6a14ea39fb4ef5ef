"""Which RPCs there are: each process is asked by reflection, so new ones come by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import quintet


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC of one process; `path` as it travels."""

    process: str
    path: str
    descriptor: MethodDescriptor

    @property
    def request(self) -> Descriptor:
        """What the RPC takes."""
        return self.descriptor.input_type

    @property
    def is_unary(self) -> bool:
        """Whether it answers with one message."""
        return not self.descriptor.server_streaming

    @property
    def destroys(self) -> bool:
        """Whether it takes away what other calls need."""
        return self.descriptor.name in ("DeleteCollection", "SwitchCollections")


async def methods_of(channels: Mapping[str, grpc.aio.Channel]) -> list[Method]:
    """Return all RPCs of the processes but for gRPC's own, health and reflection."""
    for folder in map(Path, quintet.__path__):
        for file in folder.rglob("*_pb2.py"):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            importlib.import_module(".".join(parts))
    pool = descriptor_pool.Default()
    found = []
    for process, channel in channels.items():
        for name in await _services(channel):
            if not name.startswith("grpc."):
                found += [
                    Method(process, f"/{name}/{it.name}", it)
                    for it in pool.FindServiceByName(name).methods
                ]
    return found


async def _services(channel: grpc.aio.Channel) -> list[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    replies = [it async for it in stub.ServerReflectionInfo(iter([asked]))]
    return sorted(it.name for it in replies[0].list_services_response.service)
