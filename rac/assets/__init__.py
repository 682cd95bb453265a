"""The embedded tiny reasoner: its task, its generic text, its tokenizer and its weights."""
