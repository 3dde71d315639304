"""Postgres: the pool, the tenancy of a transaction, and the migrations."""
