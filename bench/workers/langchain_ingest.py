"""The ingest that LangChain's documentation shows, over one PostgreSQL with pgvector.

    python -m bench.workers.langchain_ingest MODEL_FOLDER DATABASE_URL

Cuts by the same model's tokens, embeds with sentence-transformers, writes rows with
their vectors; it makes no index, of words or of vectors. Runs with the Python of the
peer's environment.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from langchain_core.documents import Document  # type: ignore[import-not-found]
from langchain_huggingface import HuggingFaceEmbeddings  # type: ignore[import-not-found]
from langchain_postgres import PGEngine, PGVectorStore  # type: ignore[import-not-found]
from langchain_text_splitters import (  # type: ignore[import-not-found]
    RecursiveCharacterTextSplitter,
)
from transformers import AutoTokenizer

from bench.workers.serving import Answer, serve


def open_worker() -> Answer:
    """Load the model and connect."""
    folder, database = sys.argv[1:]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    embeddings = HuggingFaceEmbeddings(
        model_name=folder,
        model_kwargs={"device": "cpu"},
        encode_kwargs={"batch_size": 32, "normalize_embeddings": True},
    )
    splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
        AutoTokenizer.from_pretrained(folder), chunk_size=128, chunk_overlap=16
    )
    engine = PGEngine.from_connection_string(database)

    def ingest(documents: dict[str, str]) -> float:
        engine.init_vectorstore_table("bench", 384, overwrite_existing=True)
        store = PGVectorStore.create_sync(engine, embeddings, "bench")
        began = time.perf_counter()
        whole = [Document(text, metadata={"id": name}) for name, text in documents.items()]
        store.add_documents(splitter.split_documents(whole))
        return time.perf_counter() - began

    return ingest


if __name__ == "__main__":
    serve(open_worker)
