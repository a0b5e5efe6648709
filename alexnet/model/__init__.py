"""The network: its architecture as a table, the table as a module, and its response norms."""
