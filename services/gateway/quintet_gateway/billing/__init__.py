"""What requests cost: the price table, and the bill of each request."""
