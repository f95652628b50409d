"""An asynchronous batch-job runner for chat-completion APIs: rows in, Parquet out, resumable."""

__version__ = "0.1.0"
