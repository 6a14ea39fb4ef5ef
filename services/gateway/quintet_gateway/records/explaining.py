"""Finds the record of an answer: among those that wait to be written, or in the database."""

from __future__ import annotations

from uuid import UUID

from quintet.gateway.v1 import explain_service_pb2 as explain_pb
from quintet_gateway.records.composing import Composer
from quintet_gateway.records.store import PostgresRecords
from quintet_gateway.records.writer import RecordWriter
from quintet_servicekit.errors import Reason, ServiceError
from quintet_servicekit.identity import Identity


class Explainer:
    """Finds records."""

    def __init__(self, store: PostgresRecords, writer: RecordWriter, composer: Composer) -> None:
        self._store = store
        self._writer = writer
        self._composer = composer

    async def record(self, asker: Identity, answer_id: str) -> explain_pb.AnswerRecord:
        """Return the record of an answer of the asker's tenant; with an empty id the newest
        of the asker's own key.

        Raises `ServiceError` ANSWER_NOT_FOUND, and as the database does.
        """
        if answer_id:
            entry = self._writer.waiting(asker.tenant, UUID(answer_id))
        else:
            entry = self._writer.newest(asker.tenant, asker.key)
        if entry is not None:
            # As it will be stored, so that nothing depends on when one asks.
            return explain_pb.AnswerRecord.FromString(self._composer.packed(entry))
        if answer_id:
            found = await self._store.find(asker.tenant, UUID(answer_id))
        else:
            found = await self._store.newest(asker.tenant, asker.key)
        if found is None:
            raise ServiceError(
                Reason.ANSWER_NOT_FOUND,
                "there is no record of that answer",
                metadata={"answer_id": answer_id},
            )
        return found
