"""Pictures from the outside world into data/raw/<set>/: a polite fetcher, a ledger of addresses, and the sources."""
