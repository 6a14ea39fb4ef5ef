"""The panels of each service's dashboard: its calls, how full it is, and its own work."""

from __future__ import annotations

from deploy.observability.panels import Panel, lines, number, or_zero, quantiles, rate

FAULTS = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"
"""Codes that are our fault, as in the traces."""


def calls(service: str) -> list[Panel]:
    """Return the panels of rate, errors and duration of a service."""
    job = f'job="{service}"'
    handled = "grpc_server_handled_total"
    faults = f'{job}, grpc_code=~"{FAULTS}"'
    return [
        lines("Calls by method", "ops", (rate(handled, job, "grpc_method"), "{{grpc_method}}")),
        lines(
            "Calls that ended with an error, by code",
            "ops",
            (
                or_zero(rate(handled, f'{job}, grpc_code!="OK"', "grpc_method, grpc_code")),
                "{{grpc_method}} {{grpc_code}}",
            ),
        ),
        quantiles("Duration", "grpc_server_handling_seconds", job, by="grpc_method"),
        lines(
            "Share of faults",
            "percentunit",
            (
                f"({or_zero(rate(handled, faults))}) / {rate(handled, job)}",
                "faults",
            ),
        ),
    ]


def saturation(service: str) -> list[Panel]:
    """Return the panels of how full a service is."""
    job = f'job="{service}"'
    return [
        lines(
            "Calls under way, and the limit that adapts",
            "none",
            (
                f"sum by (priority) (quintet_admission_in_flight{{{job}}})",
                "under way {{priority}}",
            ),
            (f"sum by (priority) (quintet_admission_limit{{{job}}})", "limit {{priority}}"),
            (f"sum(quintet_admission_waiting{{{job}}})", "bulk in line"),
        ),
        lines(
            "Calls refused",
            "ops",
            (rate("quintet_admission_refused_total", job, "priority"), "{{priority}}"),
        ),
        lines(
            "Wait before a call is begun, where many come",
            "s",
            (
                f"max by (grpc_method) (quintet_admission_line_seconds{{{job}}})",
                "{{grpc_method}}",
            ),
            text="Measured after each hundred calls of a method. Who has less time left than "
            "that is refused.",
        ),
        lines(
            "Processor",
            "percentunit",
            (rate("process_cpu_seconds_total", job), "cores"),
            text="1 is one core.",
        ),
        lines(
            "Memory",
            "bytes",
            (f"max(process_resident_memory_bytes{{{job}}})", "resident, largest replica"),
        ),
        lines(
            "Calls that began and that are under way, by method",
            "none",
            (f"sum by (grpc_method) (grpc_server_in_flight{{{job}}})", "{{grpc_method}}"),
            (rate("grpc_server_started_total", job, "grpc_method"), "{{grpc_method}} a second"),
        ),
        lines(
            "Changes of breakers, and certificates read anew",
            "ops",
            (
                or_zero(rate("quintet_breaker_transitions_total", job, "breaker, state")),
                "{{breaker}} → {{state}}",
            ),
            (rate("quintet_tls_loads_total", job, "outcome"), "certificates {{outcome}}"),
        ),
    ]


def executors(service: str) -> Panel:
    """Return the panel of the threads for what blocks."""
    job = f'job="{service}"'
    return lines(
        "Blocking calls, running and waiting",
        "none",
        (f"sum by (executor) (quintet_executor_calls{{{job}}})", "{{executor}}"),
        (f"sum by (executor) (quintet_executor_calls_max{{{job}}})", "{{executor}}, most"),
    )


def pool(service: str) -> list[Panel]:
    """Return the panels of a service's connections to PostgreSQL."""
    job = f'job="{service}"'
    return [
        lines(
            "Connections",
            "none",
            (f"sum by (state) (db_client_connections{{{job}}})", "{{state}}"),
            (f"sum(db_client_connections_max{{{job}}})", "most"),
            (f"sum(db_client_connections_pending_requests{{{job}}})", "waiting for one"),
        ),
        quantiles("Round trips", "db_client_operation_duration_seconds", job),
    ]


def service_board(service: str) -> dict[str, list[Panel]]:
    """Return the panels of one service."""
    return {
        "Calls": calls(service),
        "Saturation": saturation(service),
        **OWN_PANELS[service],
    }


OWN_PANELS: dict[str, dict[str, list[Panel]]] = {
    "gateway": {
        "Calls to other services": [
            lines(
                "Calls",
                "ops",
                (
                    rate("grpc_client_handled_total", 'job="gateway"', "grpc_service, grpc_code"),
                    "{{grpc_service}} {{grpc_code}}",
                ),
            ),
            quantiles(
                "Duration", "grpc_client_handling_seconds", 'job="gateway"', by="grpc_service"
            ),
            lines(
                "Calls that an open breaker refused",
                "ops",
                (
                    rate("quintet_breaker_rejections_total", 'job="gateway"', "breaker"),
                    "{{breaker}}",
                ),
            ),
            lines(
                "Second attempts",
                "ops",
                (or_zero(rate("grpc_client_hedges_total", "", "grpc_method")), "{{grpc_method}}"),
            ),
            executors("gateway"),
        ],
        "Callers": [
            lines(
                "Calls that a limit refused",
                "ops",
                (or_zero(rate("quintet_limits_refused_total", "", "limit")), "{{limit}}"),
                text="Whose: in the log, with the reason RATE_LIMITED.",
            ),
            lines(
                "Limits decided without Redis",
                "ops",
                (rate("quintet_limits_unshared_total"), "decisions"),
                text="0 is well. By the setting `without_redis` limits then hold for each replica, "
                "for nobody, or for everybody.",
            ),
            lines(
                "Calls of the tenants that are told apart",
                "ops",
                (
                    or_zero(rate("quintet_tenant_handled_total", "", "tenant, grpc_code")),
                    "{{tenant}} {{grpc_code}}",
                ),
                text="Those that the setting `metrics_tenants` names.",
            ),
        ],
        "PostgreSQL": [
            *pool("gateway"),
            lines(
                "Records of answers that wait to be written",
                "none",
                ("sum(quintet_answer_records_waiting)", "waiting"),
            ),
            lines(
                "Records of answers, written and dropped",
                "ops",
                (rate("quintet_answer_records_total", "", "outcome"), "{{outcome}}"),
            ),
            lines(
                "Questions routed, by model",
                "ops",
                (
                    or_zero(
                        rate("quintet_gateway_routed_questions_total", "", "model, difficulty")
                    ),
                    "{{difficulty}} to {{model}}",
                ),
            ),
            lines(
                "Ratings of answers, by template and score",
                "ops",
                (
                    or_zero(rate("quintet_gateway_ratings_total", "", "template, score")),
                    "{{template}} {{score}}",
                ),
            ),
        ],
    },
    "tokenizer": {
        "Work": [
            lines(
                "Tokens",
                "ops",
                (
                    rate("quintet_tokenizer_tokens_total", "", "model, method"),
                    "{{model}} {{method}}",
                ),
                text="Estimated ones stand for a tokenizer that does not load.",
            ),
            executors("tokenizer"),
        ],
    },
    "embedder": {
        "Work": [
            lines(
                "Tokens", "ops", (rate("quintet_embedder_tokens_total", "", "model"), "{{model}}")
            ),
            lines(
                "Texts a batch",
                "none",
                (
                    f"{rate('quintet_embedder_batch_texts_sum', '', 'model')}"
                    f" / {rate('quintet_embedder_batch_texts_count', '', 'model')}",
                    "mean {{model}}",
                ),
            ),
            lines(
                "Texts in line",
                "none",
                ("sum by (model) (quintet_embedder_queue_texts)", "{{model}}"),
            ),
            quantiles("Wait for a batch", "quintet_embedder_queue_seconds", "", by="purpose"),
            executors("embedder"),
        ],
    },
    "retriever": {
        "PostgreSQL": [
            *pool("retriever"),
            lines(
                "Round trips by operation",
                "ops",
                (
                    rate(
                        "db_client_operation_duration_seconds_count",
                        'job="retriever"',
                        "db_operation_name, db_collection_name",
                    ),
                    "{{db_operation_name}} {{db_collection_name}}",
                ),
            ),
        ],
        "Index": [
            lines(
                "Held",
                "none",
                ("max(quintet_index_documents)", "documents"),
                ("max(quintet_index_chunks)", "chunks"),
                ("max(quintet_index_collections)", "collections"),
            ),
            lines(
                "Size",
                "bytes",
                ("max(quintet_index_hnsw_bytes)", "HNSW indexes"),
                ("max(quintet_index_database_bytes)", "database"),
            ),
            lines("News in the outbox", "none", ("max(quintet_outbox_rows)", "rows")),
            lines("Oldest of it", "s", ("max(quintet_outbox_oldest_seconds)", "age")),
            number("Active relays", "none", "sum(quintet_relay_active)", "Exactly one."),
            lines(
                "Trust in the news",
                "ops",
                (rate("quintet_relay_renewals_total"), "extended"),
                (rate("quintet_epoch_revocations_total"), "taken back"),
                text="Taken back when a write's news could not be told.",
            ),
            lines(
                "Collections of which words were counted",
                "ops",
                (rate("quintet_word_counts_total"), "counts"),
            ),
        ],
    },
    "generator": {
        "Work": [
            lines(
                "Answers, by model and template",
                "ops",
                (
                    rate("quintet_generator_answers_total", "", "model, template"),
                    "{{model}} {{template}}",
                ),
            ),
            quantiles(
                "Time to the first piece of an answer",
                "quintet_generator_time_to_first_token_seconds",
                "",
                by="model",
            ),
            lines(
                "Tokens",
                "ops",
                (rate("quintet_generator_tokens_total", "", "model, kind"), "{{model}} {{kind}}"),
            ),
            lines(
                "Requests that run and wait",
                "none",
                (or_zero("sum by (model) (quintet_generator_requests_running)"), "run {{model}}"),
                (or_zero("sum by (model) (quintet_generator_requests_waiting)"), "wait {{model}}"),
            ),
            lines(
                "Wait for a place in the batch",
                "s",
                (
                    or_zero(
                        f"{rate('quintet_generator_queue_seconds_sum', '', 'model')}"
                        f" / {rate('quintet_generator_queue_seconds_count', '', 'model')}"
                    ),
                    "mean {{model}}",
                ),
            ),
            lines(
                "Steps of the models",
                "ops",
                (
                    or_zero(rate("quintet_generator_decode_steps_total", "", "model, phase")),
                    "{{model}} {{phase}}",
                ),
            ),
            lines(
                "Requests decoded together",
                "none",
                (
                    or_zero(
                        f"{rate('quintet_generator_batch_requests_sum', '', 'model')}"
                        f" / {rate('quintet_generator_batch_requests_count', '', 'model')}"
                    ),
                    "mean {{model}}",
                ),
                text="Of the backend that decodes in batches, where it is used.",
            ),
        ],
    },
}
