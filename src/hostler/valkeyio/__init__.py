"""How Valkey/Redis is spoken: client, embedded server, keys, functions. The only room that imports `redis`."""
