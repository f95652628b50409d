"""The run directory: what was paid for, kept so that no kill, crash or full disk loses or doubles it."""
