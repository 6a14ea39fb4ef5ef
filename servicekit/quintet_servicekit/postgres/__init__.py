"""PostgreSQL as a service uses it: a bounded pool behind a breaker, statements that end with
their caller, and migrations."""
