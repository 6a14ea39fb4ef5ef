"""What people think of answers, by prompt template and model."""
