"""Why a figure falls short of its goal, where we know, by the figure's name.

Shown beside it in docs/benchmarks.md while it falls short, and only then. The profiles
were taken on the same machine, by span and by each thread's processor time.
"""

_SERVED = (
    "A text takes 18.4 ms of the two cores: 16.7 the model, 1.0 the service's event loop "
    "(gRPC 0.4, span, metrics and log line 0.3, tokenizer 0.2), 0.3 the client beside it; a lane "
    "is idle 1.5 % of the time. "
)

_QUERY = (
    "An empty call with the same pauses, from the table, is all that the goal allows: cores that "
    "have slept wake slowly. The rest is the service's own 0.6 ms of Python, twice that on a "
    "core that has slept, and the hand-over to the model's thread and back. "
)

_HOPS = (
    "When answers were not yet checked for what supports them, and searches not yet by BM25, the "
    "work of the four services took 11.8 ms by the traces (embedder 4.9, retriever 3.6, "
    "generator 2.0, tokenizer 1.3) where one process took 8.6; the wire takes 1.1 to 1.2 ms on "
    "each of five hops, of which a bare echo takes 0.6. "
)

_REFUSING = (
    "A kept answer takes 1 ms of the gateway's one thread of Python, and a refusal 0.25, of which "
    "0.22 are grpc.aio's own. "
)

REASONS: dict[str, str] = {
    "embedder: 256 callers of one text each, by infinity-emb 0.0.78's server in bf16": _SERVED
    + "The engine alone is 1.6 times infinity's server. With the client on another machine and "
    "an event loop that costs half as much it would be 1.50.",
    "embedder: 256 callers of one text each, by infinity-emb 0.0.78 in bf16 in process": _SERVED
    + "The engine alone is 1.45 times infinity's, whose callers pay for no wire.",
    "embedder: 256 callers of one text each, by bf16 arithmetic": _SERVED
    + "The engine alone reaches 0.83: its matrix products, 81 % of its time, run at 95 % of the "
    "limit, attention takes 11 %, norms and sums 8 %. With "
    "attention at twice the speed it would be 0.80.",
    "queries: p50 of a lone 12-token query beside a bulk ingest": _QUERY
    + "Beside the ingest it also waits for a core: Linux lets a thread of low priority finish "
    "its slice. A shorter slice for the query's threads would help (sched_setattr, for which "
    "Python has no call).",
    "tokenizer: p50 of Count of one question": "The service takes 0.75 ms of processor time a "
    "call, the echo 0.4: span 0.09, the tokenizer 0.07, validation and messages 0.06, metrics and "
    "log line 0.1, which the answer does not wait for. Sampling few traces would save the span's.",
    "ingest: documents over the gateway, by the embedder alone": "The two cores are busy all the "
    "time, and an eighth of it is not the embedder's: of 25 s PostgreSQL took 1.3 (two indexes), "
    "the tokenizer 0.9, the retriever 0.6, the gateway 0.5, the client 0.3. That "
    "explains a ratio of 0.86, which quieter runs gave; what more is missing here has not been "
    "profiled. With PostgreSQL and the client on another machine 0.90 is within reach.",
    "memory: embedder, by 1 MB of text": "Taken before the engine's compiled shapes were bounded "
    "(64 of them, in steps of 8 tokens); not taken again since.",
    "memory: retriever, by 1 MB of text": "Twelve megabytes are few to tell a slope from pools "
    "that still fill; not taken again over the thirty that it now runs.",
    "overload: new questions, 3 × capacity: answers within 0.8 s": "At the goal, within what runs "
    "differ by: 0.897 here, while two whole runs of the code of just before gave 0.95 and 0.99.",
    "overload: repeated questions, 3 × capacity: answers within 0.8 s": _REFUSING
    + "So of three thousand calls a second the refused alone take half a core, and 0.4 of the peak "
    "is what one process can do; those it answers take half a second at most.",
    "overload: repeated questions, 10 × capacity: answers within 0.8 s": _REFUSING
    + "That is two and a half cores for ten thousand calls a second; there are two, and the "
    "callers share them.",
    "answers: p50 of a kept answer": "An empty call takes 0.6 ms of it. The rest is the question's "
    "key, the look-up, identity and limits, the bill, and the entry for usage; the record is "
    "written after. It was 0.95 ms before records and usage were kept of each answer.",
    "answers: kept answers, 32 callers": "Each takes about 1 ms of the gateway's processor time, "
    "the echo 0.26: of the main thread a third is the answer's own work (key, look-up, message), a "
    "tenth usage and records, and a tenth metrics, span and log line; gRPC's poller, spans and "
    "metrics have threads that wait for the same interpreter. It was 1,702 before records and "
    "usage were kept of each answer. More gateways scale it; so would an interpreter whose "
    "threads run at once.",
    "answers: a new answer, by a kept one": "By the instructions that it is given now the language "
    "model ends its answers after some 20 to 30 tokens, in 0.6 s where they took 4; and kept "
    "answers take longer.",
    "chain: p50 of a cold Ask": _HOPS
    + "An answer without a language model takes too little time for five hops to vanish in.",
    "chain: cold Asks by 16 callers": _HOPS
    + "An answer took 20 ms of processor time then: embedder 7.0 (two threads on one short query; "
    "in one they would take 5), gateway 3.9, generator 2.4, PostgreSQL 2.2, tokenizer and "
    "retriever 2.1 each, client and traces 1.5. Twice the throughput would leave 12.",
    "chain: gateway's own time in a cold Ask, p50": "By the traces of another run, in which it was "
    "3.9 ms: 0.9 before the first call (admission, the request's own reading, key, limits), 0.4 "
    "between Embed and Search, 0.8 from there to Count (instructions, near-duplicates), 0.8 from "
    "there to the generator (evidence, the prompt) and 1.0 after it (bill, record, what is kept). "
    "What was found in a passage is remembered; before that it was 5.2 in the same run. What is "
    "left has not been profiled function by function.",
    "chain_model: p50 of a cold Ask": "Of the excess 13 ms are the hops, as in `chain`. Sending "
    "each token alone took 43 ms of the processors from the model; ten pieces a second are left. "
    "Asked in turns, question by question, the two were 1.01 and 1.05 apart on two occasions: what "
    "is more is the machine's own unrest from one second to the next.",
    "chain_model: cold Asks by 16 callers": "Reading the prompt is two fifths to a half of an "
    "answer's time and gains nothing from batching on two cores: with decoding for nothing the "
    "ratio would be 2.0 to 2.5.",
}
