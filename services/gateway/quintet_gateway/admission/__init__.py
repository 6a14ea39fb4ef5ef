"""Who may ask how much: limits of requests, of tokens and of streams at once."""
