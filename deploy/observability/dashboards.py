"""The dashboards: overview, one a service, caches, cost.

An expression that has no data while all is well ends in `or vector(0)`; a test runs each
against a real Prometheus.
"""

from __future__ import annotations

from typing import Any

from deploy.observability.panels import Panel, board, lines, number, or_zero, quantiles, rate
from deploy.observability.service_panels import service_board

SERVICES = ("gateway", "tokenizer", "embedder", "retriever", "generator")
QUESTIONS = 'job="gateway", grpc_method=~"Ask|AskStream|Search"'


def overview() -> dict[str, list[Panel]]:
    """Return the overview's panels."""
    burn = "quintet_slo:bad_ratio:{0} / on (slo) group_left () quintet_slo:budget_ratio"
    return {
        "Service levels": [
            number(
                "Questions answered without a fault, 3 days",
                "percentunit",
                '1 - quintet_slo:bad_ratio:rate3d{slo="availability"}',
                "Objective: 99.5 %.",
            ),
            number(
                "Answers within 10 s, 3 days",
                "percentunit",
                '1 - quintet_slo:bad_ratio:rate3d{slo="answer_latency"}',
                "Objective: 95 %.",
            ),
            number(
                "Searches within 1 s, 3 days",
                "percentunit",
                '1 - quintet_slo:bad_ratio:rate3d{slo="search_latency"}',
                "Objective: 99 %.",
            ),
            number(
                "Budget left of 30 days, the scarcest",
                "percentunit",
                "min(1 - quintet_slo:bad_ratio:rate30d"
                " / on (slo) group_left () quintet_slo:budget_ratio)",
                "0: as much was bad as may be; what is below 0 was too much.",
            ),
            lines(
                "How fast the budgets burn, by the last hour",
                "none",
                (burn.format("rate1h"), "{{slo}}"),
                text="1 spends the budget in exactly 30 days; 14.4 pages.",
            ),
            lines(
                "Services that can be scraped",
                "none",
                (f'sum by (job) (up{{job=~"{"|".join(SERVICES)}"}})', "{{job}}"),
                text="Replicas of each.",
            ),
        ],
        "Questions": [
            lines(
                "Questions by method and code",
                "ops",
                (
                    rate("grpc_server_handled_total", QUESTIONS, "grpc_method, grpc_code"),
                    "{{grpc_method}} {{grpc_code}}",
                ),
            ),
            quantiles(
                "Time to an answer's end",
                "grpc_server_handling_seconds",
                QUESTIONS,
                by="grpc_method",
            ),
            lines(
                "Share answered with a substitute",
                "percentunit",
                (
                    f"{rate('grpc_server_degraded_total', QUESTIONS)}"
                    f" / {rate('grpc_server_handled_total', QUESTIONS)}",
                    "degraded",
                ),
            ),
            lines(
                "Substitutes",
                "ops",
                (
                    rate("quintet_degradations_total", "", "hop, cause, substitute"),
                    "{{hop}}: {{cause}} → {{substitute}}",
                ),
                text="docs/degradation.md says what each means.",
            ),
            lines(
                "Errors by reason, all services",
                "ops",
                (rate("grpc_server_errors_total", "", "job, reason"), "{{job}} {{reason}}"),
            ),
            lines(
                "Breakers that are not closed",
                "none",
                (
                    'max by (job, breaker) (1 - quintet_breaker_state{state="closed"})',
                    "{{job}} → {{breaker}}",
                ),
            ),
        ],
        "Documents": [
            lines(
                "Documents that came in",
                "ops",
                (
                    or_zero(
                        rate(
                            "grpc_server_handled_total",
                            'job="retriever", grpc_method="UpsertDocuments", grpc_code="OK"',
                        )
                    ),
                    "upserts",
                ),
            ),
            lines(
                "Oldest news of a write that has not been told",
                "s",
                ("max(quintet_outbox_oldest_seconds)", "oldest"),
            ),
        ],
    }


def caches() -> dict[str, list[Panel]]:
    """Return the caches' panels."""
    lookups = "quintet_cache_lookups_total"
    return {
        "Tiers": [
            lines(
                "Hit ratio by tier",
                "percentunit",
                ("quintet_cache:hit_ratio:rate15m", "{{job}} {{tier}}"),
            ),
            lines(
                "Look-ups by outcome",
                "ops",
                (rate(lookups, "", "tier, outcome"), "{{tier}} {{outcome}}"),
            ),
            lines(
                "Hits by where they lay",
                "ops",
                (or_zero(rate(lookups, 'store!="none"', "tier, store")), "{{tier}} {{store}}"),
            ),
            lines(
                "Streams led, joined and attached",
                "ops",
                (
                    or_zero(rate("quintet_cache_flights_total", "", "tier, role")),
                    "{{tier}} {{role}}",
                ),
            ),
        ],
        "Room": [
            lines(
                "Entries in memory",
                "none",
                ("sum by (job, tier) (quintet_cache_entries)", "{{tier}}"),
            ),
            lines(
                "Bytes in memory", "bytes", ("sum by (job, tier) (quintet_cache_bytes)", "{{tier}}")
            ),
        ],
        "Redis": [
            quantiles("Commands", "quintet_cache_redis_seconds", "", by="job"),
            lines(
                "Subscriptions to the news of writes",
                "ops",
                (rate("quintet_epoch_subscriptions_total", "", "job"), "{{job}}"),
                text="Begun anew where Redis was lost.",
            ),
            lines(
                "Errors",
                "ops",
                (
                    or_zero(rate("quintet_cache_errors_total", "", "tier, kind")),
                    "{{tier}} {{kind}}",
                ),
            ),
        ],
    }


def cost() -> dict[str, list[Panel]]:
    """Return the panels of what is spent. The unit is the price table's currency."""
    spent, saved = "quintet_cost_micros_total", "quintet_cost_saved_micros_total"
    return {
        "Spent": [
            number("An hour", "none", f"sum(rate({spent}[1h])) * 3600 / 1e6"),
            number(
                "A day, at the last hour's pace",
                "none",
                f"sum(rate({spent}[1h])) * 86400 / 1e6",
            ),
            lines(
                "Cost a second, in millionths",
                "none",
                (rate(spent, "", "hop, model"), "{{hop}} {{model}}"),
            ),
            lines(
                "Saved by caches a second, in millionths",
                "none",
                (rate(saved, "", "hop, model"), "{{hop}} {{model}}"),
            ),
            lines(
                "Cost of a question, in millionths",
                "none",
                (
                    f"{rate(spent)} / {rate('grpc_server_handled_total', QUESTIONS)}",
                    "mean",
                ),
            ),
            lines(
                "Calls of models that have no price",
                "ops",
                (or_zero(rate("quintet_cost_unpriced_calls_total", "", "hop")), "{{hop}}"),
                text="What they cost is not in the other panels.",
            ),
            lines(
                "Calls refused for a spent budget",
                "ops",
                (
                    or_zero(rate("grpc_server_errors_total", 'reason=~"BUDGET_.+"')),
                    "refused",
                ),
                (
                    or_zero(rate("quintet_budget_calls_total", "", "period, outcome")),
                    "{{period}} {{outcome}}",
                ),
                text="Warned: it is nearly spent. Exhausted: refused, documents too, or "
                "served cheaply, as the tenant's policy says.",
            ),
        ],
        "Usage": [
            lines(
                "Entries, counted in the database and lost",
                "ops",
                (or_zero(rate("quintet_usage_entries_total", "", "outcome")), "{{outcome}}"),
                text="Lost where the outbox could not be written: full or read-only disk.",
            ),
            lines(
                "Outbox that is not counted yet",
                "bytes",
                ("sum(quintet_usage_outbox_bytes)", "bytes"),
                text="Grows while PostgreSQL is away.",
            ),
        ],
        "Tokens": [
            lines(
                "Generator",
                "ops",
                (rate("quintet_generator_tokens_total", "", "model, kind"), "{{model}} {{kind}}"),
            ),
            lines(
                "Embedder", "ops", (rate("quintet_embedder_tokens_total", "", "model"), "{{model}}")
            ),
        ],
    }


def dashboards() -> dict[str, Any]:
    """Return all dashboards by their names."""
    return {
        "overview": board("overview", "Quintet: overview", overview()),
        **{
            service: board(service, f"Quintet: {service}", service_board(service))
            for service in SERVICES
        },
        "caches": board("caches", "Quintet: caches", caches()),
        "cost": board("cost", "Quintet: cost", cost()),
    }
