"""Who is alive, and what may be submitted: workers, kinds and queues as the engine keeps them."""
