"""Records of answers: how each came about, kept for some days."""
