"""Links between documents, handed on to the retriever."""
