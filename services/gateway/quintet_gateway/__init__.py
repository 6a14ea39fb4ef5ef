"""The gateway: one call asks a question or brings in documents.

It orchestrates and nothing more: no model, no database. It alone calls the
other services, and the messages between its layers are their contracts.
"""
