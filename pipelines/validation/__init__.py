"""What the validate stage is made of: the index, the expectations, the Data Docs."""
