"""Training language models on generated text: tokenizer, packed rows, loop, held-out perplexity, export."""
