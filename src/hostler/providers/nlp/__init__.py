"""What the language service can do: word vectors, topics, times, keywords, spelling."""
