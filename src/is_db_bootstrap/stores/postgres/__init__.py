"""PostgreSQL: `bootstrapper` is the store, the modules beside it are its nouns."""
