"""Processes that train one network together: who they are, what they exchange, and who is alive."""
