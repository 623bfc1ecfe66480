"""Which endpoint gets a job, and how much it may get now: thin shells around `policy`."""
