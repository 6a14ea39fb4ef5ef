"""Names of what Quintet's spans tell beyond OpenTelemetry's own conventions.

docs/tracing.md has each with its unit and the spans that have it. Durations are in seconds.
No value is a document's or a question's text, or of a document's metadata.
"""

from __future__ import annotations

from typing import Final

CACHE_TIER: Final = "quintet.cache.tier"
CACHE_OUTCOME: Final = "quintet.cache.outcome"
CACHE_LOOKUPS: Final = "quintet.cache.lookups"
CACHE_HITS: Final = "quintet.cache.hits"

BREAKER_NAME: Final = "quintet.breaker.name"
BREAKER_STATE: Final = "quintet.breaker.state"
BREAKER_CAUSE: Final = "quintet.breaker.cause"
BREAKER_TRANSITION: Final = "quintet.breaker.transition"
"""Event: the call made the breaker change its state."""
BREAKER_REJECTED: Final = "quintet.breaker.rejected"
"""Event: the breaker let a call of the dependency not be made."""

DEGRADED: Final = "quintet.degraded"
"""True on the span of a response of which something was degraded: collectors keep by it."""
DEGRADATION: Final = "quintet.degradation"
"""Event: something was served in place of what failed."""
DEGRADATION_HOP: Final = "quintet.degradation.hop"
DEGRADATION_CAUSE: Final = "quintet.degradation.cause"
DEGRADATION_SUBSTITUTE: Final = "quintet.degradation.substitute"
DEGRADATION_AGE: Final = "quintet.degradation.age"

DEADLINE_GIVEN: Final = "quintet.deadline.given"
DEADLINE_SPENT: Final = "quintet.deadline.spent"
DEADLINE_LEFT: Final = "quintet.deadline.left"

ADMISSION_WAIT: Final = "quintet.admission.wait"
QUEUE_WAIT: Final = "quintet.queue.wait"
LIMITS_WAIT: Final = "quintet.limits.wait"

COST_NANOS: Final = "quintet.cost.nanos"
COST_SAVED_NANOS: Final = "quintet.cost.saved_nanos"
"""Both in nano-units of the price table's currency."""

TEMPLATE: Final = "quintet.template"
TEMPLATE_REVISION: Final = "quintet.template.revision"
ROUTING_EASE: Final = "quintet.routing.ease"
ROUTING_EASY: Final = "quintet.routing.easy"

BATCH_TEXTS: Final = "quintet.batch.texts"
BATCH_TOKENS: Final = "quintet.batch.tokens"
BATCH_CALLERS: Final = "quintet.batch.callers"
BATCH_REQUESTS: Final = "quintet.batch.requests"

ERROR_REASON: Final = "quintet.error.reason"

HEDGED: Final = "quintet.hedged"
"""Event: a second attempt began."""
FAULT: Final = "quintet.fault"
"""Event: a fault that the caller asked for was done to it."""
FAULT_DELAY: Final = "quintet.fault.delay"
FAULT_ABORT: Final = "quintet.fault.abort"
