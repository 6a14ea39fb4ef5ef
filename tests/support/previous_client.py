"""A caller with the contracts of an earlier commit, run as a program of its own.

Its arguments: the folder with the generated code, the gateway's address, a collection's name.
What it finds goes to standard output as JSON. It uses what a caller of long standing does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(contracts: str, address: str, collection: str) -> None:
    """Make the collection, bring in a document, search, ask in both ways."""
    # Nothing of the present contracts may be found.
    others = [path for path in sys.path if not (Path(path) / "quintet").is_dir()]
    sys.path[:] = [contracts, *others]
    import grpc

    from quintet.gateway.v1 import gateway_service_pb2 as pb
    from quintet.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub

    assert Path(pb.__file__).is_relative_to(contracts), pb.__file__
    found: dict[str, Any] = {}
    with grpc.insecure_channel(address) as channel:
        stub = GatewayServiceStub(channel)
        stub.CreateCollection(pb.CreateCollectionRequest(name=collection), timeout=30)
        document = pb.Document(id="tides", content="Tides are caused by the gravity of the moon.")
        (ingested,) = stub.Ingest(
            iter([pb.IngestRequest(collection=collection, document=document)]), timeout=60
        )
        found["ingest"] = ingested.WhichOneof("result")
        question = "What causes tides?"
        searched = stub.Search(pb.SearchRequest(collection=collection, query=question), timeout=30)
        found["search"] = [hit.document_id for hit in searched.hits]
        ask = pb.AskRequest(collection=collection, question=question)
        answered = stub.Ask(ask, timeout=60)
        found["ask"] = answered.answer
        found["citations"] = len(answered.citations)
        events = list(stub.AskStream(ask, timeout=60))
        found["stream"] = "".join(it.text_delta.text for it in events)
        found["last"] = events[-1].WhichOneof("event")
        stub.DeleteCollection(pb.DeleteCollectionRequest(name=collection), timeout=30)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
