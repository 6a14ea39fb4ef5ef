"""Which model and which prompt template answer a question, by the tenant's policy."""
