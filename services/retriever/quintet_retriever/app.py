"""Puts the retriever together: the one place where its parts are made and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from quintet.retriever.v1 import retriever_service_pb2 as pb
from quintet.retriever.v1 import retriever_service_pb2_grpc as pb_grpc
from quintet.retriever.v1.link_service_pb2_grpc import add_LinkServiceServicer_to_server
from quintet_retriever import result_codec
from quintet_retriever.announcer import Announcer
from quintet_retriever.database import SCHEMA, Database
from quintet_retriever.engine import Engine
from quintet_retriever.links.engine import LinkEngine
from quintet_retriever.links.reader import ParsedLinks
from quintet_retriever.links.servicer import SERVICE as LINK_SERVICE
from quintet_retriever.links.servicer import LinkServicer
from quintet_retriever.links.store import PostgresLinks
from quintet_retriever.models import Tuning
from quintet_retriever.relay import Relay
from quintet_retriever.search_store import PostgresSearch
from quintet_retriever.searching import TIER, Searcher
from quintet_retriever.servicer import RetrieverServicer
from quintet_retriever.settings import Settings
from quintet_retriever.store import PostgresStore
from quintet_retriever.word_counter import WordCounter
from quintet_servicekit import cache_service, status_service
from quintet_servicekit.background import end
from quintet_servicekit.breaker_fleet import sharing
from quintet_servicekit.cache import Cache, open_remote
from quintet_servicekit.cache_service import register_cache_service
from quintet_servicekit.epochs import EpochNews, open_watch
from quintet_servicekit.postgres.migrator import migrate_when_possible
from quintet_servicekit.server import Application
from quintet_servicekit.status_service import register_status_service

SERVICE = pb.DESCRIPTOR.services_by_name["RetrieverService"].full_name


@asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    """Open the retriever; it becomes ready once PostgreSQL answers and is migrated."""
    async with AsyncExitStack() as stack:
        remote = await stack.enter_async_context(open_remote(settings.cache))
        watch = await stack.enter_async_context(open_watch(remote))
        database = Database(settings)
        stack.push_async_callback(database.close)
        if settings.share_breakers:
            await stack.enter_async_context(sharing(remote, "retriever", [database.breaker]))
        codec, layout = result_codec.CODEC, result_codec.SCHEMA
        results = Cache(TIER, codec, settings.cache, remote, schema=layout)
        stack.push_async_callback(results.aclose)
        news = None if remote is None else EpochNews(remote)
        link_reader = ParsedLinks()
        stack.push_async_callback(link_reader.close)
        announcer = Announcer(news, watch, database)
        engine = Engine(
            PostgresStore(database, settings),
            Searcher(
                PostgresSearch(database, settings),
                results,
                watch,
                Tuning(settings.candidates, settings.dense_weight),
            ),
            announcer,
            link_reader,
        )
        servicer = RetrieverServicer(engine, settings)
        links = LinkServicer(LinkEngine(engine, PostgresLinks(database, settings), announcer))
        relay = Relay(settings, news)
        counter = WordCounter(settings)

        def register(server: grpc.aio.Server) -> None:
            pb_grpc.add_RetrieverServiceServicer_to_server(servicer, server)
            add_LinkServiceServicer_to_server(links, server)
            register_cache_service(server, [results], remote)
            register_status_service(server, [database.breaker], remote)

        async def warm_up() -> None:
            await migrate_when_possible(settings, SCHEMA)
            await database.open()
            for name, work in (("relay", relay.run()), ("word counter", counter.run())):
                stack.push_async_callback(end, asyncio.create_task(work, name=name))

        yield Application(
            service=SERVICE,
            register=register,
            warm_up=warm_up,
            check=database.ping,
            more_services=(LINK_SERVICE, cache_service.SERVICE, status_service.SERVICE),
        )
