"""What a program in one process would do for a question, made of the very same parts.

No service, no queue, no trace, no wire but PostgreSQL's; the models, the statement and
the prompt are those that the services use, each called the fastest way we know, on all
cores. It answers one question after the other, as such programs do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.rows import dict_row
from tokenizers import Tokenizer

from bench.database import SEE_ROWS
from quintet_embedder.checkpoint import read_checkpoint
from quintet_embedder.openvino_backend import MODEL_FILE
from quintet_embedder.prepare import converted_folder
from quintet_embedder.settings import Settings as EmbedderSettings
from quintet_embedder.settings import model_folder
from quintet_gateway.citations import Citer
from quintet_gateway.near_duplicates import near_duplicates
from quintet_gateway.packing import pack
from quintet_gateway.passage_text import given_of
from quintet_gateway.question import searched_for
from quintet_gateway.reader import Reader
from quintet_gateway.settings import Settings as GatewaySettings
from quintet_gateway.support import Evidence
from quintet_generator.batch_messages import Start
from quintet_generator.chat_tokenizer import ChatTokenizer
from quintet_generator.evidence import evidence
from quintet_generator.extractive import answer
from quintet_generator.model_files import find_openvino_folder
from quintet_generator.models import Passage, Query, TextDelta
from quintet_generator.openvino_backend import batch_config
from quintet_generator.prompts import Templates
from quintet_generator.settings import GeneratorSettings
from quintet_retriever.models import CollectionKey, Mode, SearchQuery
from quintet_retriever.search_sql import index_settings, search_statement
from quintet_retriever.settings import Settings as RetrieverSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the number of passages that it rests on."""

    text: str
    passages: int
    citations: int


class SingleProcess:
    """The pipeline. `with_model` also loads the language model."""

    def __init__(self, database: str, collection: str, threads: int, *, with_model: bool) -> None:
        self._embedder = _Embedder(threads)
        self._search = _Search(database, collection)
        self._generator = _Generator() if with_model else None
        self._limits = GatewaySettings()
        self._settings = GeneratorSettings()
        # It need not read again what the gateway does not read again.
        self._reader = Reader(self._limits.reading_bytes)

    def ask(self, question: str, max_tokens: int) -> Answer:
        """Return the answer from the best passages, with its citations."""
        hits = self._search(question, self._embedder(question), self._limits.default_passages)
        found = [
            Passage(
                hit["title"], given_of(hit["text"], self._reader.instructions(hit["text"])).text
            )
            for hit in hits
        ]
        count = self._generator.count if self._generator else self._embedder.count
        sizes = count([question, *(it.text for it in found)])[1:]
        repeats = near_duplicates(
            [it.text for it in found], self._limits.duplicate_similarity, self._reader.shingles
        )
        kept = [found[index] for index in pack(sizes, self._limits.context_tokens, repeats)]
        query = Query("", question, tuple(kept), "answer", max_tokens)
        if self._generator is None:
            events = answer(query, self._settings.extractive_sentences)
            text = "".join(it.text for it in events if isinstance(it, TextDelta))
        else:
            chosen = evidence(query, self._settings.evidence_sentences)
            text = self._generator(question, chosen, max_tokens)
        evidence_of = Evidence([it.text for it in kept], read=self._reader.sentences)
        citer = Citer(evidence_of, self._limits.min_citation_support)
        cited = [*citer.feed(text), *citer.finish()]
        return Answer(text, len(kept), sum(len(it.citations) for it in cited))


class _Embedder:
    def __init__(self, threads: int) -> None:
        settings = EmbedderSettings()
        self._tokenizer = Tokenizer.from_file(
            str(read_checkpoint(model_folder(settings)).tokenizer_file)
        )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        compiled = ov.Core().compile_model(
            converted_folder(settings) / MODEL_FILE,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16",
                "NUM_STREAMS": "1",
                "INFERENCE_NUM_THREADS": threads,
            },
        )
        self._request = compiled.create_infer_request()

    def count(self, texts: list[str]) -> list[int]:
        return [len(it.ids) for it in self._tokenizer.encode_batch_fast(texts)]

    def __call__(self, question: str) -> NDArray[np.float32]:
        ids = np.array([self._tokenizer.encode(question).ids], dtype=np.int64)
        outputs = self._request.infer([ids, np.ones_like(ids)], share_inputs=True)
        vector: NDArray[np.float32] = np.array(outputs[0][0], dtype=np.float32)
        return vector / np.linalg.norm(vector)


class _Search:
    def __init__(self, database: str, collection: str) -> None:
        self._connection = psycopg.connect(database, autocommit=True, row_factory=dict_row)
        self._connection.execute("SELECT set_config('jit', 'off', false)")
        self._connection.execute(SEE_ROWS)
        register_vector(self._connection)
        found = self._connection.execute(
            "SELECT id, embedding_revision, dimension FROM retriever.collection WHERE name = %s",
            [collection],
        ).fetchone()
        assert found is not None
        self._key = CollectionKey(**found)
        self._settings = RetrieverSettings()

    def __call__(self, text: str, vector: NDArray[np.float32], k: int) -> Sequence[dict[str, Any]]:
        query = SearchQuery(Mode.HYBRID, searched_for(text), vector, k, None)
        connection = self._connection
        with connection.pipeline():
            connection.execute("BEGIN")
            for statement in (
                index_settings(self._settings),
                search_statement(self._key, query, self._settings),
            ):
                cursor = connection.execute(statement.sql, statement.parameters)
            connection.execute("COMMIT")
        return cursor.fetchall()


class _Generator:
    def __init__(self) -> None:
        # Here, because the extractive backend needs none of it.
        from quintet_generator.batch_worker import Batch

        settings = GeneratorSettings()
        folder = find_openvino_folder(settings)
        config = batch_config(settings, folder)
        self._chat = ChatTokenizer(folder)
        self._plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = Templates.packaged().get("answer")
        self._ends = frozenset(config.end_tokens)
        self._batch = Batch(config)
        self._numbers = itertools.count()

    def count(self, texts: list[str]) -> list[int]:
        return [len(it.ids) for it in self._plain.encode_batch_fast(texts)]

    def __call__(self, question: str, passages: Sequence[Passage], max_tokens: int) -> str:
        prompt = self._chat.encode(self._template.render(question, passages))
        self._batch.obey(Start(next(self._numbers), prompt, max_tokens, 0.0, 0, "", False))
        tokens: list[int] = []
        while not self._batch.is_idle:
            for progress in self._batch.step():
                tokens += progress.tokens
        return self._chat.decode([it for it in tokens if it not in self._ends])
