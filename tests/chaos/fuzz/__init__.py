"""Every RPC with random and mutated messages, metadata and streams; `suite` says what for."""
