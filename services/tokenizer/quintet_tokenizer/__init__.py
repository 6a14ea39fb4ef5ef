"""The tokenizer service: text in, tokens out. See the README beside this package."""
