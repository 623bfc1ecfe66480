"""Language services made of providers: `hostler serve nlp`, and others with the same paths."""
